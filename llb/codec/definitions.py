"""A whole definition to bytes and back: operations stay the bytes they are, metadata and source map are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from google.protobuf.message import DecodeError

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition
from buildengine.events import ProgressGroup
from llb.codec.ranges import range_message, source_range
from llb.ops import EMPTY, OpMetadata
from llb.pb import ops_pb2 as pb
from llb.sourcemap import Place, SourceFile, SourceMap


def encode_definition(operations: Sequence[bytes], metadata: Mapping[Digest, OpMetadata], source: SourceMap) -> bytes:
    """The Definition message; the same values always give the same bytes."""
    try:
        message = pb.Definition()
        getattr(message, "def").extend(operations)  # a keyword of Python
        for digest, known in metadata.items():
            message.metadata[digest].CopyFrom(metadata_message(known))
        if source.files or source.places:
            message.Source.CopyFrom(_source_message(source))
        return message.SerializeToString(deterministic=True)
    except (ValueError, DecodeError) as error:
        raise InvalidDefinition(f"definition cannot be encoded: {error}") from error


def decode_definition(data: bytes) -> tuple[tuple[bytes, ...], Mapping[Digest, OpMetadata], SourceMap]:
    """Operations as received, metadata and source map. Raises InvalidDefinition."""
    try:
        message = pb.Definition.FromString(data)
    except DecodeError as error:
        raise InvalidDefinition("definition is not an LLB message", hint="is this really LLB?") from error
    # A key that is no digest is not an error: it names no operation, so it is never looked up.
    metadata = {Digest(key): _metadata(value) for key, value in message.metadata.items()}
    return tuple(getattr(message, "def")), MappingProxyType(metadata), _source(message.Source)


def metadata_message(known: OpMetadata) -> pb.OpMetadata:
    group, export = known.progress_group, known.export_cache
    return pb.OpMetadata(
        ignore_cache=known.ignore_cache,
        description=known.description,
        export_cache=None if export is None else pb.ExportCache(Value=export),
        caps=dict.fromkeys(known.caps, True),
        progress_group=None if group is None else pb.ProgressGroup(id=group.id, name=group.name, weak=group.weak),
    )


def _metadata(m: pb.OpMetadata) -> OpMetadata:
    group = m.progress_group
    return OpMetadata(
        ignore_cache=m.ignore_cache,
        description=MappingProxyType(dict(m.description)) if m.description else EMPTY,
        export_cache=m.export_cache.Value if m.HasField("export_cache") else None,
        caps=frozenset(m.caps),
        progress_group=ProgressGroup(id=group.id, name=group.name, weak=group.weak)
        if m.HasField("progress_group")
        else None,
    )


# --- source map -------------------------------------------------------------------------------------------


def _source_message(source: SourceMap) -> pb.Source:
    message = pb.Source(infos=[_file_message(f) for f in source.files])
    index = {file: position for position, file in enumerate(source.files)}
    for digest, places in source.places.items():
        message.locations[digest].locations.extend(
            [pb.Location(sourceIndex=index[p.file], ranges=[range_message(r) for r in p.ranges]) for p in places]
        )
    return message


def _source(m: pb.Source) -> SourceMap:
    files = tuple([_file(info) for info in m.infos])
    places = {Digest(key): tuple([_place(x, files) for x in value.locations]) for key, value in m.locations.items()}
    return SourceMap(files=files, places=MappingProxyType(places))


def _file_message(file: SourceFile) -> pb.SourceInfo:
    definition = pb.Definition.FromString(file.definition) if file.definition else None
    return pb.SourceInfo(filename=file.filename, data=file.data, definition=definition, language=file.language)


def _file(m: pb.SourceInfo) -> SourceFile:
    definition = m.definition.SerializeToString(deterministic=True)
    return SourceFile(filename=m.filename, data=m.data, definition=definition, language=m.language)


def _place(m: pb.Location, files: tuple[SourceFile, ...]) -> Place:
    if not 0 <= m.sourceIndex < len(files):
        raise InvalidDefinition(f"source map names file {m.sourceIndex} of {len(files)}")
    return Place(file=files[m.sourceIndex], ranges=tuple([source_range(r) for r in m.ranges]))
