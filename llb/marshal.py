"""From vertices to a `Definition`: encode inputs before users, give each its digest, keep equal operations once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from buildengine.digest import Digest
from llb import caps, codec
from llb.definition import Definition
from llb.ops import Op, OpMetadata
from llb.order import postorder
from llb.sourcemap import Place, SourceFile, SourceMap
from llb.vertices import DefinitionVertex, Inputs, OperationVertex, Output, Target, Vertex


def marshal(result: Output | None, target: Target) -> Definition:
    """The definition whose result is `result`. The same vertices and target always give the same bytes."""
    if result is None:
        return Definition()
    collected = _Collected()
    for vertex in postorder(result.vertex, lambda v: [source.vertex for source in v.sources]):
        if isinstance(vertex, OperationVertex):
            collected.encode(vertex, target)
        elif isinstance(vertex, DefinitionVertex):
            collected.take_over(vertex.definition)
    return collected.finish(result)


class _Collected:
    """The definition while it grows."""

    def __init__(self) -> None:
        self.digests: dict[Vertex, Digest] = {}
        self.ops: dict[Digest, bytes] = {}
        self.metadata: dict[Digest, OpMetadata] = {}
        self.places: dict[Digest, dict[Place, None]] = {}  # the keys, in order

    def encode(self, vertex: OperationVertex, target: Target) -> None:
        op = vertex.op(Inputs(self.digests), target)
        data = codec.encode(op)
        digest = self.digests[vertex] = Digest.sha256(data)
        metadata = vertex.about.metadata
        self.add(digest, data, replace(metadata, caps=metadata.caps | caps.required(op)), vertex.about.places)

    def take_over(self, definition: Definition) -> None:
        for digest, data in list(zip(definition.digests(), definition.ops, strict=True))[:-1]:
            places = definition.source.places.get(digest, ())
            self.add(digest, data, definition.metadata.get(digest, OpMetadata()), places)

    def add(self, digest: Digest, data: bytes, metadata: OpMetadata, places: tuple[Place, ...]) -> None:
        self.ops.setdefault(digest, data)
        known = self.metadata.get(digest)
        self.metadata[digest] = metadata if known is None else _merged(known, metadata)
        self.places.setdefault(digest, {}).update(dict.fromkeys(places))  # an entry also where nobody said

    def finish(self, result: Output) -> Definition:
        data = codec.encode(Op(inputs=(Inputs(self.digests).edge(result),)))
        needed = caps.required_by_metadata(self.metadata.values())
        self.metadata[Digest.sha256(data)] = OpMetadata(caps=needed)
        places = _with_each_file_once({digest: tuple(several) for digest, several in self.places.items()})
        return Definition(
            ops=(*self.ops.values(), data),
            metadata=MappingProxyType(self.metadata),
            source=SourceMap(files=_files(places), places=MappingProxyType(places)),
        )


def _files(places: Mapping[Digest, tuple[Place, ...]]) -> tuple[SourceFile, ...]:
    return tuple(dict.fromkeys([place.file for several in places.values() for place in several]))


def _with_each_file_once(places: dict[Digest, tuple[Place, ...]]) -> dict[Digest, tuple[Place, ...]]:
    """A file that was read twice is one, though somebody wrote the definition that it was read from otherwise: the same
    result counts (BuildKit client/llb/sourcemap.go, equalSourceMap)."""
    files = _files(places)
    if len(files) < 2:
        return places
    known: dict[object, SourceFile] = {}
    same = {file: known.setdefault(_identity(file), file) for file in files}
    return {
        digest: tuple([replace(place, file=same[place.file]) for place in several])
        for digest, several in places.items()
    }


def _identity(file: SourceFile) -> object:
    ops = codec.decode_definition(file.definition)[0] if file.definition else ()
    return file.filename, file.language, file.data, ops[-1:]


def _merged(first: OpMetadata, second: OpMetadata) -> OpMetadata:
    """What is known of an operation that two vertices became: the later one wins where both speak."""
    return OpMetadata(
        ignore_cache=first.ignore_cache or second.ignore_cache,
        description=MappingProxyType({**first.description, **second.description}),
        export_cache=first.export_cache if second.export_cache is None else second.export_cache,
        caps=first.caps | second.caps,
        progress_group=second.progress_group or first.progress_group,
    )
