"""What is found in the cache, and what is touched to find it: one build after another on one store."""

from __future__ import annotations

import trio

from solver.job import open_job
from solver.scheduler import open_scheduler
from solver.vertex import Edge
from tests.fakes.solver_fixtures import store as store
from tests.fakes.solver_fixtures import world as world
from tests.fakes.solver_vertices import CountingStore, World, unwrap


async def build(store: CountingStore, edge: Edge) -> object:
    """One job of one engine; nothing of it is alive afterwards."""
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        (result,) = await job.solve([edge])
        return unwrap(result)


async def test_single_level_cache(world: World, store: CountingStore) -> None:
    assert await build(store, world.vertex("v0", seed="seed0", value="result0")) == "result0"
    assert await build(store, world.vertex("v1", seed="seed1", value="result1")) == "result1"
    assert await build(store, world.vertex("v2", seed="seed0", value="result2")) == "result0"
    assert world.calls.execs == ["v0", "v1"]
    assert world.calls.cache_maps == ["v0", "v1", "v2"]


async def test_multi_level_calculation(world: World, store: CountingStore) -> None:
    def graph() -> Edge:
        nine = [world.sum(0, world.const(7), world.const(2)) for _ in range(2)]
        return world.sum(1, *nine, world.const(2), world.const(2), world.const(19))

    assert await build(store, graph()) == 42
    world.calls.clear()
    store.loads = 0  # equal vertices of one build may find each other's records
    assert await build(store, graph()) == 42
    assert world.calls.execs == []
    assert store.loads == 1


async def test_optimized_cache_access(world: World, store: CountingStore) -> None:
    """An input whose content is to be compared is computed; another, which matches by definition, is not."""

    def graph(version: str) -> Edge:
        v1 = world.vertex("v1", seed="seed1", value="result1" + version)
        v2 = world.vertex("v2" + version, seed="seed2" + version, value="result2")
        return world.vertex("v0", seed="seed0", value="result0" + version, inputs=[v1, v2], content=[1])

    assert await build(store, graph("")) == "result0"
    assert store.loads == 0
    world.calls.clear()
    assert await build(store, graph("-changed")) == "result0"
    assert world.calls.execs == ["v2-changed"]
    assert len(world.calls.cache_maps) == 3
    assert store.loads == 1


async def test_optimized_cache_access_computes_content_only_of_inputs_that_did_not_match(
    world: World, store: CountingStore
) -> None:
    def graph(one: str, two: str) -> Edge:
        v1 = world.vertex("v1" + one, seed="seed1" + one, value="result1")
        v2 = world.vertex("v2" + two, seed="seed2" + two, value="result2")
        return world.vertex("v0", seed="seed0", value="result0" + one + two, inputs=[v1, v2], content=[0, 1])

    assert await build(store, graph("", "")) == "result0"
    world.calls.clear()
    assert await build(store, graph("", "-changed")) == "result0"
    assert world.calls.execs == ["v2-changed"]
    assert store.loads == 1  # v1 is neither loaded nor executed
    world.calls.clear()
    assert await build(store, graph("-changed2", "-changed2")) == "result0"
    assert sorted(world.calls.execs) == ["v1-changed2", "v2-changed2"]
    assert store.loads == 2


async def test_slow_cache(world: World, store: CountingStore) -> None:
    def graph(name: str, seed: str, value: str) -> Edge:
        below = world.vertex(name + "-below", seed=seed, value="result1")
        return world.vertex(name, seed="seed0", value=value, inputs=[below], content=[0])

    assert await build(store, graph("v0", "seed1", "result0")) == "result0"
    assert await build(store, graph("v2", "seed3", "not-cached")) == "result0"
    assert world.calls.execs == ["v0-below", "v0", "v2-below"]


async def test_after_a_hit_by_content_the_definition_hits_too(world: World, store: CountingStore) -> None:
    def graph(seed: str) -> Edge:
        below = world.vertex("below" + seed, seed=seed, value="same")
        return world.vertex("v" + seed, seed="seed0", value=seed, inputs=[below], content=[0])

    assert await build(store, graph("a")) == "a"
    assert await build(store, graph("b")) == "a"
    world.calls.clear()
    assert await build(store, graph("b")) == "a"
    assert world.calls.execs == world.calls.content == []


async def test_run_after_copy_hits_although_the_local_source_is_new_in_each_session(
    world: World, store: CountingStore
) -> None:
    def graph(session: str, files: str) -> Edge:
        base = world.vertex("base", value="base")
        local = world.vertex("local" + session, value=files)
        copy = world.vertex("copy" + session, seed="copy", value="copied " + files, inputs=[base, local], content=[1])
        return world.vertex("run" + session, seed="run", value="ran on " + files, inputs=[copy])

    assert await build(store, graph("-1", "x")) == "ran on x"
    world.calls.clear()
    assert await build(store, graph("-2", "x")) == "ran on x"
    assert world.calls.execs == ["local-2"]
    assert store.loads == 1  # the record of run; neither base nor copy
    world.calls.clear()
    assert await build(store, graph("-3", "y")) == "ran on y"
    assert world.calls.execs == ["local-3", "copy-3", "run-3"]


async def test_slow_cache_avoid_access(world: World, store: CountingStore, autojump_clock: object) -> None:
    """An edge that is slow to say what it needs must not have content computed below it meanwhile."""

    async def slowly() -> None:
        await trio.sleep(1)

    def graph() -> Edge:
        v2 = world.vertex("v2", value="result2")
        v1 = world.vertex("v1", value="result1", inputs=[v2], content=[0], selectors={0: "sel0"})
        return world.vertex("v0", value="result0", inputs=[v1], before_cache_map=slowly)

    assert await build(store, graph()) == "result0"
    world.calls.clear()
    assert await build(store, graph()) == "result0"
    assert world.calls.execs == world.calls.content == []
    assert store.loads == 1


async def test_slow_cache_avoid_load_on_cache(world: World, store: CountingStore, autojump_clock: object) -> None:
    """moby/buildkit#648: an input that may match is not loaded for its content while another one still climbs."""

    async def slowly() -> None:
        await trio.sleep(1)

    def graph(version: str) -> Edge:
        v3 = world.vertex("v3" + version, seed="seed3" + version, value="result3", before_exec=slowly)
        v1 = world.vertex("v1", value="result1", inputs=[v3], content=[0])
        v2 = world.vertex("v2", value="result2")
        v0 = world.vertex("v0", value="result0", inputs=[v1, v2], content=[1])
        return world.vertex("vmain", value="resultmain", inputs=[v0])

    assert await build(store, graph("")) == "resultmain"
    world.calls.clear()
    assert await build(store, graph("-new")) == "resultmain"
    assert world.calls.execs == ["v3-new"]
    assert len(world.calls.cache_maps) == 5
    assert store.loads == 1


async def test_cache_with_selector(world: World, store: CountingStore) -> None:
    def graph(selector: str, value: str) -> Edge:
        v1 = world.vertex("v1", value="result1")
        return world.vertex("v0", value=value, inputs=[v1], selectors={0: selector})

    assert await build(store, graph("sel0", "first")) == "first"
    assert await build(store, graph("sel0", "second")) == "first"
    assert store.loads == 1
    assert await build(store, graph("sel1", "third")) == "third"
    assert store.loads == 2  # v1, under the other selector


async def test_the_same_content_under_another_selector_hits(world: World, store: CountingStore) -> None:
    def graph(selector: str, value: str) -> Edge:
        v1 = world.vertex("v1", value="result1")
        return world.vertex("v0", value=value, inputs=[v1], selectors={0: selector}, content=[0])

    assert await build(store, graph("sel0", "first")) == "first"
    world.calls.clear()
    assert await build(store, graph("sel1", "second")) == "first"
    assert world.calls.execs == []
    assert store.loads == 2  # v1, to read its content, and the record


async def test_repeat_build_with_ignore_cache(world: World, store: CountingStore) -> None:
    def graph(version: str, *ignoring: str) -> Edge:
        v1 = world.vertex("v1", value="result1" + version, ignore_cache="v1" in ignoring)
        return world.vertex("v0", value="result0" + version, inputs=[v1], ignore_cache="v0" in ignoring)

    assert await build(store, graph("")) == "result0"
    world.calls.clear()
    assert await build(store, graph("-1", "v0", "v1")) == "result0-1"
    assert world.calls.execs == ["v1", "v0"]
    assert await build(store, graph("-2", "v1")) == "result0-2", "whoever uses what ignored the cache executes too"
    assert await build(store, graph("-3")) == "result0-2", "what was made without the cache is stored"


async def test_ignore_cache_reaches_all_that_is_built_on_it(world: World, store: CountingStore) -> None:
    """BuildKit finds the third vertex by the key of the second, and shows the result of the old chain."""

    def graph(version: str, *, ignore: bool) -> Edge:
        edge = world.vertex("v0", value="0" + version, ignore_cache=ignore)
        for name in ("v1", "v2", "v3"):
            edge = world.vertex(name, compute=lambda below, name=name: [below + name], inputs=[edge])
        return edge

    assert await build(store, graph("", ignore=False)) == "0v1v2v3"
    assert await build(store, graph("'", ignore=True)) == "0'v1v2v3"
    assert await build(store, graph("''", ignore=False)) == "0'v1v2v3"


async def test_ignore_cache_resume_from_slow_cache(world: World, store: CountingStore) -> None:
    """What ignored the cache but made the same content is no reason to execute what uses it."""

    def graph(version: str, *, ignore: bool) -> Edge:
        v1 = world.vertex("v1", value="result1", ignore_cache=ignore)
        v0 = world.vertex("v0", value="result0" + version, inputs=[v1], content=[0])
        return world.vertex("top", compute=lambda below: [below], inputs=[v0])

    assert await build(store, graph("", ignore=False)) == "result0"
    world.calls.clear()
    assert await build(store, graph("-no-cache", ignore=True)) == "result0"
    assert world.calls.execs == ["v1"]


async def test_other_content_under_the_same_definition_gets_a_key_of_its_own(
    world: World, store: CountingStore
) -> None:
    def graph(source: str, content: str, *, ignore: bool = False) -> Edge:
        below = world.vertex(source, value=content, ignore_cache=ignore)
        return world.vertex("v0", compute=lambda value: ["made of " + value], inputs=[below], content=[0])

    assert await build(store, graph("source", "old")) == "made of old"
    assert await build(store, graph("source", "new", ignore=True)) == "made of new"
    assert await build(store, graph("source", "?")) == "made of new"
    assert await build(store, graph("elsewhere", "old")) == "made of old"


async def test_cache_multiple_maps(world: World, store: CountingStore) -> None:
    first = world.vertex("v0", seed="seed0", aliases=["seed1", "seed2"], value="result0")
    assert await build(store, first) == "result0"
    assert await build(store, world.vertex("v1", seed="seed1", value="not-cached")) == "result0"
    assert await build(store, world.vertex("v2", seed="seed3", aliases=["seed2"], value="not-cached")) == "result0"


async def test_cache_input_multiple_maps(world: World, store: CountingStore) -> None:
    def graph(seed: str, version: str) -> Edge:
        v1 = world.vertex("v1" + seed, seed=seed, aliases=["seed2"], value="result1" + version)
        return world.vertex("v0", value="result0" + version, inputs=[v1])

    assert await build(store, graph("seed1", "")) == "result0"
    assert await build(store, graph("seed1.changed", "-no-cache")) == "result0"


async def test_cache_load_error(world: World, store: CountingStore) -> None:
    def graph() -> Edge:
        four = world.sum(2, world.const(2))
        return world.sum(3, world.sum(0, four, world.const(0)), world.sum(2, world.const(2)))

    assert await build(store, graph()) == 11
    store.loads = 0  # equal vertices of one build may find each other's records
    assert await build(store, graph()) == 11
    assert store.loads == 1
    world.calls.clear()
    store.lose = True
    assert await build(store, graph()) == 11
    assert len(world.calls.execs) == 5  # equal vertices execute once
    store.lose, store.broken = False, True
    assert await build(store, graph()) == 11


async def test_only_the_last_record_is_needed(world: World, store: CountingStore) -> None:
    def graph() -> Edge:
        return world.sum(1, world.sum(2, world.const(3)))

    assert await build(store, graph()) == 6
    for key in [*store._records]:
        if "root" in key:
            store.forget(key)
    world.calls.clear()
    assert await build(store, graph()) == 6
    assert world.calls.execs == []


async def test_a_pruned_record_is_made_again_from_the_nearest_that_is_left(world: World, store: CountingStore) -> None:
    def graph() -> Edge:
        return world.sum(1, world.sum(2, world.sum(3, world.const(4), name="low"), name="mid"), name="top")

    assert await build(store, graph()) == 10
    top = max(store._records, key=lambda key: store._records[key][-1].created)
    store.forget(top)
    world.calls.clear()
    assert await build(store, graph()) == 10
    assert world.calls.execs == ["top"]
    assert store.loads == 1


async def test_the_empty_tree_is_a_result_without_a_record(world: World, store: CountingStore) -> None:
    def graph(name: str) -> Edge:
        nothing = world.vertex("nothing", value=None)
        return world.vertex(name, seed="user", compute=lambda value: [str(value)], inputs=[nothing], content=[0])

    assert await build(store, graph("a")) == "None"
    world.calls.clear()
    assert await build(store, graph("b")) == "None"
    assert world.calls.execs == []


async def test_all_outputs_of_an_execution_are_stored(world: World, store: CountingStore) -> None:
    def vertex() -> Edge:
        return world.add(10, world.const(1), world.const(2), name="add")

    assert await build(store, vertex()) == 11
    world.calls.clear()
    assert await build(store, Edge(vertex=vertex().vertex, index=1)) == 12
    assert world.calls.execs == []
