"""Serialised operations and definitions as JSON documents, in the shape of `buildctl debug dump-llb`.

That is Go's encoding/json of `pb`. Names are those of the proto file (but for one), what has its default is left out,
enums are numbers, bytes are base64. It shows what was received, also what `decode` would refuse.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from buildengine.errors import InvalidDefinition
from llb.codec.definitions import metadata_message
from llb.ops import OpMetadata
from llb.pb import ops_pb2 as pb

Document = dict[str, Any]

# Go wraps the alternatives of a oneof in a struct, and shows the indexes of file actions even when they are 0.
_ONEOFS = {"Op": "Op", "FileAction": "Action", "UserOpt": "User"}
_GO_NAMES = {"byID": "byId"}  # solver/pb/json.go; there an id of 0 is left out as a default is
_ALWAYS_SHOWN = {"FileAction": ("input", "secondaryInput", "output")}


def op_document(data: bytes) -> Document:
    """The document of a serialised operation. Raises InvalidDefinition for what is no message at all."""
    try:
        return _document(pb.Op.FromString(data))
    except DecodeError as error:
        raise InvalidDefinition("operation is not an LLB message") from error


def step_document(data: bytes) -> tuple[Document, list[tuple[str, int]]]:
    """As `op_document`, without what is a local source's for one session only, and apart from it the inputs: digests
    and outputs.

    So a provenance has them (BuildKit solver/llbsolver/provenance.go, toBuildSteps). Raises InvalidDefinition.
    """
    try:
        message = pb.Op.FromString(data)
    except DecodeError as error:
        raise InvalidDefinition("operation is not an LLB message") from error
    inputs = [(each.digest, each.index) for each in message.inputs]
    del message.inputs[:]
    if message.HasField("source"):
        for name in ("local.session", "local.unique"):
            message.source.attrs.pop(name, None)
    return _document(message), inputs


def definition_document(data: bytes) -> Document:
    """The document of a serialised definition, whose operations stay the bytes that they are."""
    return _document(pb.Definition.FromString(data))


def metadata_document(metadata: OpMetadata) -> Document:
    return _document(metadata_message(metadata))


def _document(message: Message) -> Document:
    kind = message.DESCRIPTOR.name
    document: Document = {name: getattr(message, name) for name in _ALWAYS_SHOWN.get(kind, ())}
    if kind in _ONEOFS:
        document[_ONEOFS[kind]] = {}
    for field, value in message.ListFields():
        inside = document if field.containing_oneof is None else document[_ONEOFS[kind]]
        if field.name in _GO_NAMES and not value:
            continue
        inside[_GO_NAMES.get(field.name, field.name)] = _value(field, value)
    return document


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_plain(item) for item in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return _document(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
