"""A cache of elsewhere: what is found there, what is kept of it, and what is exported again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.errors import StoreError
from solver.export import KeyGraph
from solver.job import open_job
from solver.scheduler import open_scheduler
from solver.vertex import CacheSource, Edge, Result
from tests.fakes.memory_source import MemoryCacheSource, told
from tests.fakes.memory_store import MemoryCacheStore
from tests.fakes.solver_vertices import World, unwrap


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def stores(world: World) -> Iterator[list[MemoryCacheStore]]:
    """Three machines. At the end everything must be released: each reference that was made, once."""
    stores = [MemoryCacheStore(clock=lambda number=number: number) for number in (100, 200, 300)]
    yield stores
    for store in stores:
        store.close()
    assert world.ledger.live == 0


async def build(store: MemoryCacheStore, edge: Edge, *sources: CacheSource) -> tuple[object, KeyGraph]:
    """One job of one engine: its result, and what it would export."""
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        job.sources += sources
        (result,) = await job.solve([edge])
        return unwrap(result), job.key_graph(edge)


def exported(graph: KeyGraph) -> MemoryCacheSource:
    source = MemoryCacheSource()
    source.fill(graph)
    return source


def steps(world: World, tail: str = "", version: str = "") -> Edge:
    """A base, something that reads a selection of a tree, and something on top."""
    base = world.vertex("base" + version, seed="base", aliases=["base-layers"], value="base")
    tree = world.vertex("tree" + version, seed="tree" + version, value="tree")
    copy = world.vertex(
        "copy" + version, seed="copy", value="copied", inputs=[base, tree], content=[1], selectors={1: "/a"}
    )
    return world.vertex("top" + tail + version, seed="top" + tail, value="top" + tail, inputs=[copy])


async def test_another_store_executes_nothing(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], steps(world))
    world.calls.clear()
    source = exported(graph)
    assert (await build(stores[1], steps(world), source))[0] == "top"
    assert world.calls.execs == []
    assert source.loaded == ["top", "copied"]  # what nothing leads to has no result there


async def test_what_was_a_hit_is_kept_and_all_below_it(world: World, stores: list[MemoryCacheStore]) -> None:
    """The next build needs the source no more, also where it changes what came after."""
    _, graph = await build(stores[0], steps(world))
    await build(stores[1], steps(world), exported(graph))
    world.calls.clear()
    await build(stores[1], steps(world))
    await build(stores[1], steps(world, "-changed"))
    assert world.calls.execs == ["top-changed"]


async def test_content_is_recognised(world: World, stores: list[MemoryCacheStore]) -> None:
    """The tree was made otherwise and holds the same."""
    _, graph = await build(stores[0], steps(world))
    world.calls.clear()
    assert (await build(stores[1], steps(world, version="-2"), exported(graph)))[0] == "top"
    assert world.calls.execs == ["tree-2"]


async def test_what_is_exported_again_is_the_same(world: World, stores: list[MemoryCacheStore]) -> None:
    """Also what nobody had to read this time: the third machine recognises the content that the first one read."""
    _, first = await build(stores[0], steps(world))
    _, second = await build(stores[1], steps(world), exported(first))
    assert told(second) == told(first)
    world.calls.clear()
    await build(stores[2], steps(world, version="-2"), exported(second))
    assert world.calls.execs == ["tree-2"]


async def test_the_store_comes_first(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], steps(world))
    source = exported(graph)
    world.calls.clear()
    await build(stores[0], steps(world), source)
    assert (world.calls.execs, source.loaded) == ([], [])


async def test_nothing_is_looked_up_before_it_is_ready(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], steps(world))
    world.calls.clear()
    source = MemoryCacheSource()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build, stores[1], steps(world), source)
        await wait_all_tasks_blocked()
        assert world.calls.cache_maps != []
        assert world.calls.execs == []
        source.fill(graph)
    assert world.calls.execs == []


async def test_one_that_could_not_be_had(world: World, stores: list[MemoryCacheStore]) -> None:
    assert (await build(stores[1], steps(world), exported(KeyGraph())))[0] == "top"
    assert sorted(world.calls.execs) == ["base", "copy", "top", "tree"]


async def test_results_that_are_gone_are_made(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], steps(world))
    world.calls.clear()
    source = exported(graph)
    source.lose = True
    assert (await build(stores[1], steps(world), source))[0] == "top"
    assert sorted(world.calls.execs) == ["base", "copy", "top", "tree"]


async def test_only_who_names_it_believes_it(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], steps(world))
    world.calls.clear()
    async with (
        open_scheduler(stores[1]) as scheduler,
        open_job(scheduler, "one") as one,
        open_job(scheduler, "other") as other,
    ):
        one.sources.append(exported(graph))
        await one.solve([steps(world)])
        assert world.calls.execs == []
        await other.solve([steps(world, version="-2")])
    assert sorted(world.calls.execs) == ["base-2", "copy-2", "top-2", "tree-2"]  # the content was not its own reading


async def test_what_ignores_the_cache_takes_nothing(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], world.vertex("one", seed="one", value="old", inputs=[world.const(1)]))
    fresh = world.vertex("one", seed="one", value="new", inputs=[world.const(1)], ignore_cache=True)
    made, again = await build(stores[1], fresh, exported(graph))
    assert made == "new"
    assert {key.name for key in again.keys} == {key.name for key in graph.keys}
    assert (await build(stores[2], world.vertex("v", seed="one", inputs=[world.const(1)]), exported(again)))[0] == "new"


async def test_two_sources(world: World, stores: list[MemoryCacheStore]) -> None:
    """One has the beginning and the other has the end of another build: no path leads through both."""
    _, one = await build(stores[0], steps(world))
    _, two = await build(stores[1], steps(world, "-other"))
    first, second = MemoryCacheSource("first"), MemoryCacheSource("second")
    first.fill(one)
    second.fill(two)
    world.calls.clear()
    assert (await build(stores[2], steps(world, "-other"), first, second))[0] == "top-other"
    assert (await build(stores[2], steps(world), first, second))[0] == "top"
    assert world.calls.execs == []


async def test_what_was_made_twice_and_differently_is_not_mixed(world: World, stores: list[MemoryCacheStore]) -> None:
    """The tree holds something else here. What follows from the other one is neither taken nor stored for this one."""

    def graph(value: str, tail: str = "") -> Edge:
        tree = world.vertex("tree", seed="tree", value=value)
        copy = world.vertex("copy", seed="copy", value="copy of " + value, inputs=[tree], content=[0])
        return world.vertex("top", seed="top", value=f"top of {value}", inputs=[copy]) if tail else copy

    _, elsewhere = await build(stores[0], graph("theirs", "top"))
    assert (await build(stores[1], graph("ours")))[0] == "copy of ours"
    world.calls.clear()
    assert (await build(stores[1], graph("ours", "top"), exported(elsewhere)))[0] == "top of ours"
    assert world.calls.execs == ["top"]


async def test_what_is_here_in_part(world: World, stores: list[MemoryCacheStore]) -> None:
    """The beginning was built here as well, with the same content; the end is only elsewhere."""
    _, graph = await build(stores[0], steps(world))
    await build(stores[1], steps(world, "-mine"))
    world.calls.clear()
    assert (await build(stores[1], steps(world), exported(graph)))[0] == "top"
    assert world.calls.execs == []


class FullStore(MemoryCacheStore):
    """Takes nothing that came from elsewhere."""

    async def save(self, key: str, result: Result, *, created: float | None = None) -> None:
        if created is not None:
            raise StoreError("no space left")
        await super().save(key, result)


async def test_what_cannot_be_kept_is_made(world: World, stores: list[MemoryCacheStore]) -> None:
    _, graph = await build(stores[0], steps(world))
    world.calls.clear()
    full = FullStore()
    assert (await build(full, steps(world), exported(graph)))[0] == "top"
    assert sorted(world.calls.execs) == ["base", "copy", "top", "tree"]
    full.close()


async def test_only_what_this_build_has_had_is_exported(world: World, stores: list[MemoryCacheStore]) -> None:
    """The tree was made twice, and differently; both are in the store."""

    def graph(value: str, *, fresh: bool) -> Edge:
        tree = world.vertex("tree", seed="tree", value=value, ignore_cache=fresh)
        copy = world.vertex("copy", seed="copy", value="copy of " + value, inputs=[tree], content=[0])
        return world.vertex("top", seed="top", value="top", inputs=[copy])

    _, alone = await build(stores[1], graph("new", fresh=False))
    await build(stores[0], graph("old", fresh=False))
    _, exported_now = await build(stores[0], graph("new", fresh=True))
    assert told(exported_now) == told(alone)
