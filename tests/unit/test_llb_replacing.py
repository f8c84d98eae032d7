"""Other sources in a definition: new digests for what is built on them, and everything known of it."""

from __future__ import annotations

from llb import graph
from llb.actions import copy
from llb.ops import SourceOp
from llb.replacing import sources, with_sources
from llb.sourcemap import SourceFile
from llb.sources import image, local

FILE = SourceFile(filename="Dockerfile", data=b"FROM a\n")


def test_a_source_and_all_that_is_built_on_it() -> None:
    """What is not built on it keeps its digest."""
    base = image("a", name="from a", place=FILE.at())
    definition = base.file(copy(local("context"), "/", "/"), name="copied", place=FILE.at()).run("true").root.marshal()
    (digest,) = [digest for digest, op in sources(definition).items() if "docker-image" in str(op.payload)]
    changed = with_sources(definition, {digest: SourceOp(identifier="docker-image://b", attrs={"x": "y"})})
    before, after = graph.load(definition), graph.load(changed)
    assert [node.name for node in after.nodes.values()] == [node.name for node in before.nodes.values()]
    payloads = [node.op.payload for node in after.nodes.values() if isinstance(node.op.payload, SourceOp)]
    assert SourceOp(identifier="docker-image://b", attrs={"x": "y"}) in payloads
    assert len(set(before.nodes) & set(after.nodes)) == 1
    for node in after.nodes.values():
        if node.name in ("from a", "copied"):
            assert [location.filename for location in node.locations] == ["Dockerfile"]


def test_nothing_to_replace_is_the_same_definition() -> None:
    definition = image("a").marshal()
    assert with_sources(definition, {}) is definition
