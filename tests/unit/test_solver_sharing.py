"""Several jobs at once: what is computed once for all of them, and what happens when one leaves."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.errors import SolveError, UserError
from solver.job import Job, open_job
from solver.scheduler import open_scheduler
from solver.vertex import Edge
from tests.fakes.solver_fixtures import store as store
from tests.fakes.solver_fixtures import world as world
from tests.fakes.solver_vertices import CountingStore, World, unwrap, value


class Gate:
    """Holds whoever passes until it is opened."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        self.open = trio.Event()
        self.cancelled = 0

    async def __call__(self) -> None:
        self.reached.set()
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise


async def test_single_level_active_graph(world: World, store: CountingStore) -> None:
    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, "j1") as j1:
            async with open_job(scheduler, "j0") as j0:
                assert await value(j0, world.vertex("v0", value="result0")) == "result0"
                assert await value(j1, world.vertex("v0", value="result1")) == "result0"
            async with open_job(scheduler, "j2") as j2:
                assert await value(j2, world.vertex("v0", value="result2")) == "result0"
        assert scheduler.statistics().vertices == 0
        store.forget()
        async with open_job(scheduler, "j3") as j3:
            assert await value(j3, world.vertex("v0", value="result3")) == "result3"
    assert world.calls.execs == ["v0", "v0"]


@pytest.mark.parametrize("name", ["v0", "other"])
async def test_builds_in_parallel_execute_once(world: World, store: CountingStore, name: str) -> None:
    """By digest, and, where digests differ, by key."""
    gate = Gate()
    first = world.vertex("v0", seed="seed", value="first", before_exec=gate)
    second = world.vertex(name, seed="seed", value="second", before_exec=gate)
    async with open_scheduler(store) as scheduler, open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:
        values = []

        async def solve(job: Job, edge: Edge) -> None:
            values.append(await value(job, edge))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(solve, a, first)
            await gate.reached.wait()
            nursery.start_soon(solve, b, second)
            await wait_all_tasks_blocked()
            gate.open.set()
        assert values == ["first", "first"]
    assert world.calls.execs == ["v0"]


async def test_multi_level_cache_parallel(world: World, store: CountingStore) -> None:
    def graph(job: str) -> Edge:
        v2 = world.vertex("v2" + job, seed="seed2", value="2")
        v1 = world.vertex("v1" + job, seed="seed1", compute=lambda below: ["1" + below], inputs=[v2])
        return world.vertex("v0" + job, seed="seed0", compute=lambda below: ["0" + below], inputs=[v1])

    async with open_scheduler(store) as scheduler, open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:

        async def solve(job: Job) -> None:
            assert await value(job, graph(job.id)) == "012"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(solve, a)
            nursery.start_soon(solve, b)
    assert len(world.calls.execs) == 3


async def test_two_jobs_with_the_same_files_in_different_local_sources_execute_once(
    world: World, store: CountingStore
) -> None:
    gate = Gate()

    def graph(job: str) -> Edge:
        base = world.vertex("base", value="base")
        local = world.vertex("local" + job, value="files")
        copy = world.vertex("copy" + job, seed="copy", value="copied", inputs=[base, local], content=[1])
        return world.vertex("run" + job, seed="run", value="ran", inputs=[copy], before_exec=gate)

    async with (
        open_scheduler(store) as scheduler,
        open_job(scheduler, "a") as a,
        open_job(scheduler, "b") as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(value, a, graph("-a"))
        nursery.start_soon(value, b, graph("-b"))
        await gate.reached.wait()
        await wait_all_tasks_blocked()
        gate.open.set()
    executed = sorted([name.partition("-")[0] for name in world.calls.execs])
    assert executed == ["base", "copy", "local", "local", "run"]


@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
async def test_the_last_waiter_that_leaves_cancels(world: World, store: CountingStore, where: str) -> None:
    gate = Gate()
    edge = world.vertex("v0", value="result", **{where: gate})
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.solve, [edge])
                await gate.reached.wait()
                scope.cancel()
        assert gate.cancelled == 1
        gate.open.set()
        assert await value(job, edge) == "result"  # a cancellation is not remembered


@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
@pytest.mark.parametrize("name", ["v0", "other"])
async def test_single_cancel_parallel(world: World, store: CountingStore, where: str, name: str) -> None:
    """One of two jobs leaves; the other one notices nothing."""
    gate = Gate()
    first = world.vertex("v0", seed="seed", value="result", **{where: gate})
    second = world.vertex(name, seed="seed", value="other")
    async with open_scheduler(store) as scheduler, open_job(scheduler, "b") as b:
        async with trio.open_nursery() as nursery:
            async with open_job(scheduler, "a") as a:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as leaving:
                        leaving.start_soon(a.solve, [first])
                        await gate.reached.wait()
                        nursery.start_soon(value, b, second)
                        await wait_all_tasks_blocked()
                        scope.cancel()
            shared = name == "v0" or where == "before_exec"
            assert gate.cancelled == (0 if shared else 1)
            gate.open.set()
        # what had not begun yet is done by the op of the job that is left
        assert await value(b, second) == ("result" if where == "before_exec" else "other")


@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
@pytest.mark.parametrize("name", ["v0", "other"])
async def test_what_uses_its_job_ends_with_it(world: World, store: CountingStore, where: str, name: str) -> None:
    """The op of the other job does it, in the first one's place: it had no part in what the first had opened."""
    gate = Gate()
    first = world.vertex("v0", seed="seed", value="first", is_bound=True, **{where: gate})
    second = world.vertex(name, seed="seed", value="second")
    async with open_scheduler(store) as scheduler, open_job(scheduler, "b") as b:
        async with trio.open_nursery() as nursery:
            async with open_job(scheduler, "a") as a:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as leaving:
                        leaving.start_soon(a.solve, [first])
                        await gate.reached.wait()
                        nursery.start_soon(value, b, second)
                        await wait_all_tasks_blocked()
                        scope.cancel()
            assert gate.cancelled == 1
        assert await value(b, second) == "second"


class NotGiven(UserError):
    is_clients = True


@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
@pytest.mark.parametrize("name", ["v0", "other"])
async def test_what_one_client_lacks_another_may_have(
    world: World, store: CountingStore, where: str, name: str
) -> None:
    gate = Gate()

    async def lacking() -> None:
        await gate()
        raise NotGiven("the first has no secret")

    first = world.vertex("v0", seed="seed", value="first", **{where: lacking})
    second = world.vertex(name, seed="seed", value="second")
    async with open_scheduler(store) as scheduler, open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:
        values = []

        async def solve(job: Job, edge: Edge) -> None:
            try:
                values.append(str(await value(job, edge)))
            except SolveError as error:
                values.append(error.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(solve, a, first)
            await gate.reached.wait()
            nursery.start_soon(solve, b, second)
            await wait_all_tasks_blocked()
            gate.open.set()
    shared = name == "v0" or where == "before_exec"
    assert sorted(values) == (["second", "second"] if shared else ["second", "the first has no secret"])


async def test_what_is_another_thing_for_the_next_client_is_no_result(world: World, store: CountingStore) -> None:
    """A tag may move between the first client's question and the second's."""
    gate = Gate()

    async def lacking() -> None:
        await gate()
        raise NotGiven("the first has no login")

    first = world.vertex("v0", seed="one digest", value="first", before_exec=lacking)
    second = world.vertex("v0", seed="another digest", value="second")
    async with open_scheduler(store) as scheduler, open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:
        said = []

        async def fail(job: Job, edge: Edge) -> None:
            with pytest.raises(SolveError) as caught:
                await job.solve([edge])
            said.append(caught.value.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, a, first)
            await gate.reached.wait()
            nursery.start_soon(fail, b, second)
            await wait_all_tasks_blocked()
            gate.open.set()
    assert said == ["v0 is not any more what it was"] * 2


async def test_a_cancelled_computation_has_ended_before_its_job_has(
    world: World, store: CountingStore, autojump_clock: object
) -> None:
    ended = False

    async def stubborn() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            ended = True

    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        with trio.move_on_after(1):
            await job.solve([world.vertex("v0", before_exec=stubborn)])
        assert ended


async def test_parallel_inputs(world: World, store: CountingStore) -> None:
    waiting = 0
    both = trio.Event()

    async def meet() -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 2:
            both.set()
        await both.wait()

    inputs = [world.vertex(name, value=name, before_exec=meet) for name in ("v1", "v2")]
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        assert await value(job, world.vertex("v0", value="result0", inputs=inputs)) == "result0"


async def test_what_the_search_has_begun_is_not_begun_again_to_execute(world: World, store: CountingStore) -> None:
    """The content of `slow` was wanted to find a record for `copy`; `other` shows that there is none."""
    slow = world.vertex("slow", value=1, before_exec=wait_all_tasks_blocked)
    other = world.vertex("other", value=2)
    copy = world.vertex("copy", value=3, inputs=[slow, other], content=[0, 1])
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        assert await value(job, world.vertex("run", value=4, inputs=[copy])) == 4
    assert sorted(world.calls.execs) == ["copy", "other", "run", "slow"]


async def test_parallel_builds_ignore_cache(world: World, store: CountingStore) -> None:
    """Who ignores the cache takes nothing from who does not; the other way round is fine."""
    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, "j0") as j0, open_job(scheduler, "j1") as j1:
            assert await value(j0, world.vertex("v0", value="result0")) == "result0"
            assert await value(j1, world.vertex("v0", value="result1", ignore_cache=True)) == "result1"
        async with open_job(scheduler, "j2") as job:
            assert await value(job, world.vertex("v2", seed="seed", value="result2")) == "result2"
            async with (
                open_job(scheduler, "j3") as j3,
                open_job(scheduler, "j4") as j4,
                open_job(scheduler, "j5") as j5,
            ):
                v3 = world.vertex("v3", seed="seed", value="result3", ignore_cache=True)
                assert await value(j3, v3) == "result3"
                v4 = world.vertex("v4", seed="seed", value="result4", ignore_cache=True)
                assert await value(j4, v4) == "result3"
                assert await value(j5, world.vertex("v5", seed="seed", value="result5")) == "result3"


async def test_ignoring_the_cache_below_makes_another_vertex(world: World, store: CountingStore) -> None:
    def graph(version: str, *, ignore: bool) -> Edge:
        v1 = world.vertex("v1", value="1" + version, ignore_cache=ignore)
        return world.vertex("v0", compute=lambda below: ["0" + below], inputs=[v1])

    async with open_scheduler(store) as scheduler, open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:
        assert await value(a, graph("", ignore=False)) == "01"
        assert await value(b, graph("'", ignore=True)) == "01'"


async def test_merged_edges_lookup(world: World, store: CountingStore) -> None:
    """moby/buildkit#434"""
    four = [world.sum(2, world.const(2)) for _ in range(2)]
    edge = world.sum(3, world.sum(0, four[0], world.const(0)), four[1])
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        assert await value(job, edge) == 11
    assert len(world.calls.cache_maps) == 7
    assert len(world.calls.execs) == 5  # equal vertices execute once


@pytest.mark.parametrize("order", [(("a", 1), ("b", 0), ("a", 0), ("b", 1)), (("b", 0), ("a", 0), ("c", 1), ("a", 1))])
async def test_merged_edges_cycle(world: World, store: CountingStore, order: tuple[tuple[str, int], ...]) -> None:
    """Equal vertices with several outputs, wanted crosswise: one executes for all, none waits for itself."""
    vertices = {name: world.add(2, world.const(3), world.const(4), name="v" + name).vertex for name in "abc"}
    edge = world.sum(1, *[Edge(vertex=vertices[name], index=index) for name, index in order])
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        assert await value(job, edge) == 1 + sum([5 + index for _, index in order])
    assert len([name for name in world.calls.execs if name in {"va", "vb", "vc"}]) == 1


async def test_stale_edge_merge(world: World, store: CountingStore) -> None:
    """An execution is found as long as somebody has a part in it, also after the job that began it."""
    store.save = _save_nothing

    def graph(name: str) -> Edge:
        return world.add(2, world.const(1, "dep" + name), name=name)

    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, "j2") as j2:
            async with open_job(scheduler, "j1") as j1:
                async with open_job(scheduler, "j0") as j0:
                    await j0.solve([graph("v0")])
                    await j1.solve([graph("v1")])
                    assert scheduler.statistics().vertices == 4
                assert scheduler.statistics().vertices == 2
                assert await value(j2, graph("v2")) == 3
            assert scheduler.statistics().vertices == 2
            assert world.ledger.live > 0
        statistics = scheduler.statistics()
        assert (statistics.vertices, statistics.executions) == (0, 0)
    assert world.calls.execs == ["depv0", "v0"]


async def _save_nothing(key: str, result: object) -> None:
    await trio.lowlevel.checkpoint()


async def test_results_live_as_long_as_their_job_and_clones_longer(world: World, store: CountingStore) -> None:
    store.save = _save_nothing
    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, "job") as job:
            (result,) = await job.solve([world.sum(1, world.const(2))])
            assert result is not None
            mine = result.clone()
        assert world.ledger.live == 1
        assert unwrap(mine) == 3
        mine.release()
    assert world.ledger.live == 0
