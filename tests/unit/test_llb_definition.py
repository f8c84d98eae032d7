"""Definitions keep what they were given: bytes of operations, metadata, and where they come from."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition, Location, SourceRange
from llb import codec, ops
from llb.definition import Definition
from llb.graph import load
from llb.pb import ops_pb2 as pb
from llb.sourcemap import Place, SourceFile, SourceMap
from llb.sources import local
from llb.state import State, mkdir, scratch
from tests.unit.llb_samples import SAMPLES, A, B, digests, metadata, text

LINE_2 = SourceRange(start_line=2, end_line=2)
LINES_3_4 = SourceRange(start_line=3, end_line=4, start_column=1, end_column=9)

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
ranges = st.builds(SourceRange, start_line=int32, end_line=int32, start_column=int32, end_column=int32)
files = st.builds(
    SourceFile,
    filename=text,
    data=st.binary(max_size=9),
    language=text,
    definition=st.sampled_from([b"", Definition(ops=(b"x",)).to_bytes()]),
)


@st.composite
def source_maps(draw: st.DrawFn) -> SourceMap:
    known = tuple(draw(st.lists(files, min_size=1, max_size=3, unique=True)))
    place = st.builds(Place, file=st.sampled_from(known), ranges=st.lists(ranges, max_size=2).map(tuple))
    places = draw(st.dictionaries(digests, st.lists(place, min_size=1, max_size=2).map(tuple), max_size=3))
    return SourceMap(files=known, places=MappingProxyType(places))


@given(
    st.builds(
        Definition,
        ops=st.lists(st.binary(max_size=9), max_size=4).map(tuple),
        metadata=st.dictionaries(digests, metadata, max_size=3).map(MappingProxyType),
        source=source_maps(),
    )
)
def test_bytes_and_back(definition: Definition) -> None:
    data = definition.to_bytes()
    assert Definition.from_bytes(data) == definition
    assert Definition.from_bytes(data).to_bytes() == data


def _unsorted_source(first: str, second: str) -> bytes:
    """A source whose attributes are not in the order that our encoder writes."""
    entries = [pb.SourceOp(attrs={name: "1"}).SerializeToString() for name in (first, second)]
    body = pb.SourceOp(identifier="local://x").SerializeToString() + b"".join(entries)
    return b"\x1a" + bytes([len(body)]) + body


def test_operations_stay_as_received() -> None:
    data = _unsorted_source("b", "a")
    assert codec.encode(codec.decode(data)) != data
    digest = Digest.sha256(data)
    received = pb.Definition()
    getattr(received, "def").extend([data, codec.encode(ops.Op(inputs=(ops.Input(digest=digest),)))])
    received.metadata[digest].description["llb.customname"] = "named"

    definition = Definition.from_bytes(received.SerializeToString())

    assert definition.ops[0] == data
    assert definition.digests()[0] == digest
    assert Definition.from_bytes(definition.to_bytes()).ops[0] == data
    graph = load(definition)
    assert graph.nodes[digest].name == "named"
    assert graph.root.digest == digest


def test_an_empty_definition_is_scratch() -> None:
    assert Definition().is_scratch
    assert Definition.from_bytes(b"") == Definition()
    assert not Definition(ops=(b"",)).is_scratch


def test_metadata_under_a_key_that_is_no_digest_is_kept() -> None:
    message = pb.Definition()
    message.metadata[""].ignore_cache = True
    assert Definition.from_bytes(message.SerializeToString()).metadata[Digest("")].ignore_cache


@pytest.mark.parametrize("data", [b"\xff", b"not LLB", b"\x0a\x05ab"])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDefinition, match="not an LLB message"):
        Definition.from_bytes(data)


def test_a_place_in_a_file_that_is_not_there_is_refused() -> None:
    message = pb.Definition()
    message.Source.locations[A].locations.add(sourceIndex=1)
    message.Source.infos.add(filename="Dockerfile")
    with pytest.raises(InvalidDefinition, match="names file 1 of 1"):
        Definition.from_bytes(message.SerializeToString())


class TestSourceMap:
    dockerfile = SourceFile(filename="Dockerfile", data=b"FROM x\nRUN y\n", language="Dockerfile")

    def test_locations_are_what_errors_carry(self) -> None:
        source = SourceMap(files=(self.dockerfile,), places={A: (self.dockerfile.at(LINE_2, LINES_3_4),)})
        assert source.locations(A) == (
            Location(filename="Dockerfile", ranges=(LINE_2, LINES_3_4), text=b"FROM x\nRUN y\n", language="Dockerfile"),
        )
        assert source.locations(B) == ()

    def test_of_a_definition_written_by_buildkit(self) -> None:
        message = pb.Source()
        message.infos.add(filename="a")
        message.infos.add(filename="b", data=b"text")
        location = message.locations[A].locations.add(sourceIndex=1)
        location.ranges.add(start=pb.Position(line=3, character=1), end=pb.Position(line=4, character=9))
        definition = Definition.from_bytes(pb.Definition(Source=message).SerializeToString())
        assert definition.source.locations(A) == (Location(filename="b", ranges=(LINES_3_4,), text=b"text"),)


def test_samples_have_distinct_digests() -> None:
    definition = Definition(ops=tuple(codec.encode(op) for op in SAMPLES.values()))
    assert len(set(definition.digests())) == len(SAMPLES)


def test_a_file_that_was_read_twice_is_one_in_the_source_map() -> None:
    """A client that took a definition apart and put it together again wrote the file's own definition otherwise."""
    read = local("dockerfile").marshal()
    again = replace(read, metadata={})  # the same operations
    other = local("other").marshal()
    files = [
        SourceFile(filename="Dockerfile", data=b"FROM scratch\n", language="Dockerfile", definition=each.to_bytes())
        for each in (read, again, other)
    ]
    assert len({file.definition for file in files}) == 3
    state = scratch()
    for number, file in enumerate(files):
        place = file.at(SourceRange(start_line=number, end_line=number))
        state = State.from_definition(state.file(mkdir(f"/{number}"), place=place).marshal())
    source = state.marshal().source
    assert source.files == (files[0], files[2])
    assert [place.file for places in source.places.values() for place in places] == [files[0], files[0], files[2]]
