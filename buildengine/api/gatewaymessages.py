"""The values of the gateway API as its messages, and back, for both of its sides. No I/O."""

from __future__ import annotations

import os

from buildengine.api import attestations
from buildengine.api import gateway_pb2 as pb
from buildengine.api.bridge import Ref, Result
from buildengine.api.fsutil import go_mode, st_mode
from buildengine.api.stat_pb2 import Stat
from buildengine.errors import Location
from buildengine.events import WarningEvent
from frontends.gateway import FileInfo
from llb.codec.ranges import range_message, source_range
from llb.definition import Definition
from llb.pb import ops_pb2


def result_message(result: Result, *, refs: bool) -> pb.Result:
    """`refs`: the client knows references with definitions, and not only their ids."""
    message = pb.Result(metadata=result.metadata)
    for key, said in result.attestations.items():
        made = [attestations.told(each, _ref_message(each.ref) if each.ref else None) for each in said]
        message.attestations[key].attestation.extend(made)
    if result.refs is None:
        if refs:
            message.ref.CopyFrom(_ref_message(result.ref))
        else:
            message.refDeprecated = result.ref.id
    elif refs:
        message.refs.CopyFrom(pb.RefMap(refs={key: _ref_message(ref) for key, ref in result.refs.items()}))
    else:
        message.refsDeprecated.CopyFrom(pb.RefMapDeprecated(refs={key: ref.id for key, ref in result.refs.items()}))
    return message


def _ref_message(ref: Ref) -> pb.Ref:
    return pb.Ref(id=ref.id, **{"def": definition_message(ref.definition) if ref.definition else None})


def returned(message: pb.Result) -> Result:
    """A result that a client gives back: of its references the ids alone count. Raises RpcError."""
    metadata = dict(message.metadata)
    said = {key: tuple(map(attestations.heard, each.attestation)) for key, each in message.attestations.items()}
    match message.WhichOneof("result"):
        case "refs":
            refs = {key: Ref(id=ref.id) for key, ref in message.refs.refs.items()}
        case "refsDeprecated":
            refs = {key: Ref(id=id) for key, id in message.refsDeprecated.refs.items()}
        case _:
            ref = Ref(id=message.ref.id or message.refDeprecated)
            return Result(ref=ref, metadata=metadata, attestations=said)
    return Result(refs=refs or None, metadata=metadata, attestations=said)


def stat_message(info: FileInfo) -> Stat:
    """Names that are no UTF-8 get replacement characters: a message cannot hold them."""
    major, minor = info.device
    return Stat(
        path=_text(info.path),
        mode=go_mode(info.mode),
        uid=info.uid,
        gid=info.gid,
        size=info.size,
        modTime=info.modified,
        linkname=_text(info.link),
        devmajor=major,
        devminor=minor,
        xattrs=info.xattrs,
    )


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def file_info(message: Stat) -> FileInfo:
    """Raises ContextError for a mode that no file has."""
    return FileInfo(
        path=message.path,
        mode=st_mode(message.mode),
        uid=message.uid,
        gid=message.gid,
        size=message.size,
        modified=message.modTime,
        link=message.linkname,
        device=(message.devmajor, message.devminor),
        xattrs=dict(message.xattrs),
    )


def warning(request: pb.WarnRequest) -> WarningEvent:
    info = request.info
    ranges = tuple(map(source_range, request.ranges))
    location = Location(filename=info.filename, text=info.data, ranges=ranges) if request.HasField("info") else None
    return WarningEvent(
        vertex=request.digest,
        level=request.level,
        message=request.short.decode("utf-8", "replace"),
        detail=tuple(line.decode("utf-8", "replace") for line in request.detail),
        url=request.url,
        location=location,
    )


def warning_message(value: WarningEvent) -> pb.WarnRequest:
    message = pb.WarnRequest(
        digest=value.vertex,
        level=value.level,
        short=value.message.encode(),
        detail=[line.encode() for line in value.detail],
        url=value.url,
    )
    if value.location is not None:
        message.info.CopyFrom(ops_pb2.SourceInfo(filename=value.location.filename, data=value.location.text))
        message.ranges.extend(map(range_message, value.location.ranges))
    return message


def definition(message: ops_pb2.Definition) -> Definition:
    return Definition.from_bytes(message.SerializeToString(deterministic=True))


def definition_message(value: Definition) -> ops_pb2.Definition:
    return ops_pb2.Definition.FromString(value.to_bytes())
