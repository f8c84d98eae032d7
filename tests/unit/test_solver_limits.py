"""Several engines on one store, slots for running ops, builds inside builds, ops that outlive their job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.errors import SourceError
from buildengine.events import Event, Outcome, VertexEvent
from solver.cachekey import root_key
from solver.job import Job, open_job
from solver.scheduler import open_scheduler
from solver.vertex import Edge, Result
from tests.fakes.solver_fixtures import store as store
from tests.fakes.solver_fixtures import world as world
from tests.fakes.solver_vertices import CountingStore, World, unwrap, value


async def test_two_engines_on_one_store_execute_once(world: World, store: CountingStore) -> None:
    """As two processes do: the second waits for the first, looks again, and loads."""
    opened = trio.Event()
    reached = trio.Event()

    async def gate() -> None:
        reached.set()
        await opened.wait()

    def graph(process: str) -> Edge:
        low = world.vertex("low" + process, seed="low", value="low", before_exec=gate)
        return world.vertex("top" + process, seed="top", value="top", inputs=[low])

    async with (
        open_scheduler(store) as one,
        open_scheduler(store) as two,
        open_job(one, "a") as a,
        open_job(two, "b") as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(value, a, graph("-a"))
        await reached.wait()
        nursery.start_soon(value, b, graph("-b"))
        await wait_all_tasks_blocked()
        opened.set()
    assert [name.partition("-")[0] for name in world.calls.execs] == ["low", "top"]


async def test_two_engines_that_ignore_the_cache_do_not_wait_for_each_other(world: World, store: CountingStore) -> None:
    running = 0
    both = trio.Event()

    async def meet() -> None:
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await both.wait()

    edges = [world.vertex(name, seed="seed", value=name, ignore_cache=True, before_exec=meet) for name in "ab"]
    async with (
        open_scheduler(store) as one,
        open_scheduler(store) as two,
        open_job(one, "a") as a,
        open_job(two, "b") as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(value, a, edges[0])
        nursery.start_soon(value, b, edges[1])
    assert sorted(world.calls.execs) == ["a", "b"]


@pytest.mark.parametrize(("slots", "at_once"), [(1, 1), (3, 3), (None, 8)])
async def test_max_parallelism_counts_running_ops(
    world: World, store: CountingStore, autojump_clock: object, slots: int | None, at_once: int
) -> None:
    running = most = 0

    async def run() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    inputs = [world.vertex(f"v{number}", value=number, before_exec=run) for number in range(8)]
    async with open_scheduler(store, max_parallelism=slots) as scheduler, open_job(scheduler, "job") as job:
        assert await value(job, world.sum(0, *inputs)) == 28
    assert most == at_once


async def test_who_waits_for_inputs_or_for_another_engine_holds_no_slot(
    world: World, store: CountingStore, autojump_clock: object
) -> None:
    async def slowly() -> None:
        await trio.sleep(1)

    deep = world.sum(1, world.sum(2, world.vertex("slow", value=3, before_exec=slowly)))
    locked = root_key((await world.const(7).vertex.op.cache_map()).digest, 0)
    async with (
        open_scheduler(store, max_parallelism=1) as scheduler,
        open_job(scheduler, "job") as job,
        trio.open_nursery() as nursery,
        store.exclusive(locked),
    ):
        nursery.start_soon(value, job, world.const(7))
        await wait_all_tasks_blocked()
        assert await value(job, deep) == 6


async def test_subbuild(world: World, store: CountingStore) -> None:
    """An op that solves: it occupies no slot, so that its own ops get one."""

    def graph(job: Job) -> Edge:
        async def build() -> None:
            (result,) = await job.solve([world.const(7, "inner")])
            assert unwrap(result) == 7

        nested = world.vertex("nested", value=7, before_exec=build, occupy_slot=False)
        return world.sum(1, nested)

    async with open_scheduler(store, max_parallelism=1) as scheduler:
        async with open_job(scheduler, "j0") as job:
            assert await value(job, graph(job)) == 8
        world.calls.clear()
        async with open_job(scheduler, "j1") as job:
            assert await value(job, graph(job)) == 8
    assert world.calls.execs == []


@pytest.mark.parametrize("name", ["v0", "other"])
@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
async def test_an_op_that_fails_since_its_job_has_left_is_replaced_by_the_next_jobs(
    world: World, store: CountingStore, name: str, where: str
) -> None:
    reached, left = trio.Event(), trio.Event()

    async def use_session() -> None:
        reached.set()
        await left.wait()
        raise SourceError("the session is closed")

    first = world.vertex("v0", seed="seed", value="first", **{where: use_session})
    second = world.vertex(name, seed="seed", value="second")
    values = []
    told: list[Event] = []

    async def solve(job: Job, edge: Edge) -> None:
        values.append(await value(job, edge))

    async with (
        open_scheduler(store) as scheduler,
        open_job(scheduler, "b", told.append) as b,
        trio.open_nursery() as nursery,
    ):
        async with open_job(scheduler, "a") as a:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(a.solve, [first])
                    await reached.wait()
                    nursery.start_soon(solve, b, second)
                    await wait_all_tasks_blocked()
                    scope.cancel()
        left.set()
    assert values == ["second"]
    assert Outcome.FAILED not in {event.outcome for event in told if isinstance(event, VertexEvent)}


async def test_a_job_that_leaves_while_its_execution_waits_for_another_engine(
    world: World, store: CountingStore
) -> None:
    """Its inputs have gone with it: those of the job that is left are used."""

    def graph(job: str) -> Edge:
        local = world.vertex("local" + job, value="files", stable=False)
        return world.vertex("copy" + job, seed="copy", compute=lambda files: [files + job], inputs=[local], content=[0])

    values = []

    async def solve(job: Job) -> None:
        values.append(await value(job, graph("-" + job.id)))

    released = trio.Event()

    @asynccontextmanager
    async def waiting(_key: str) -> AsyncIterator[None]:
        await released.wait()
        yield

    store.exclusive = waiting
    async with open_scheduler(store) as scheduler, open_job(scheduler, "b") as b, trio.open_nursery() as nursery:
        async with open_job(scheduler, "a") as a:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(a.solve, [graph("-a")])
                    await wait_all_tasks_blocked()
                    nursery.start_soon(solve, b)
                    await wait_all_tasks_blocked()
                    scope.cancel()
        released.set()
    assert values == ["files-b"]


async def test_a_nested_build_of_a_job_that_ends_is_taken_over(world: World, store: CountingStore) -> None:
    """The op of the first job waits in a build of that job; when the job ends, the second job's op builds."""
    reached, opened = trio.Event(), trio.Event()

    async def gate() -> None:
        reached.set()
        await opened.wait()

    def graph(job: Job) -> Edge:
        async def build() -> None:
            await job.solve([world.vertex("inner" + job.id, value=1, before_exec=gate)])

        return world.vertex("outer", value="made by " + job.id, before_exec=build, occupy_slot=False)

    values = []

    async def solve(job: Job) -> None:
        values.append(await value(job, graph(job)))

    async with open_scheduler(store) as scheduler, open_job(scheduler, "b") as b, trio.open_nursery() as nursery:
        async with open_job(scheduler, "a") as a:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(a.solve, [graph(a)])
                    await reached.wait()
                    nursery.start_soon(solve, b)
                    await wait_all_tasks_blocked()
                    scope.cancel()
        opened.set()
    assert values == ["made by b"]


async def test_a_nested_build_is_cancelled_with_the_op_that_waits_for_it(world: World, store: CountingStore) -> None:
    reached = trio.Event()

    async def gate() -> None:
        reached.set()
        await trio.sleep_forever()

    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:

        async def build() -> None:
            await job.solve([world.vertex("inner", value=1, before_exec=gate)])

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.solve, [world.vertex("outer", before_exec=build, occupy_slot=False)])
                await reached.wait()
                scope.cancel()
    assert world.calls.execs == ["outer", "inner"]


async def test_inputs_stay_while_an_execution_uses_them_though_their_job_has_left(
    world: World, store: CountingStore
) -> None:
    reached, opened = trio.Event(), trio.Event()

    async def gate() -> None:
        reached.set()
        await opened.wait()

    def graph(job: str) -> Edge:
        local = world.vertex("local" + job, value="files")
        return world.vertex(
            "copy" + job, seed="copy", compute=lambda files: [files], inputs=[local], content=[0], before_exec=gate
        )

    values = []

    async def solve(job: Job, edge: Edge) -> None:
        values.append(await value(job, edge))

    async with open_scheduler(store) as scheduler, open_job(scheduler, "b") as b, trio.open_nursery() as nursery:
        async with open_job(scheduler, "a") as a:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as leaving:
                    leaving.start_soon(a.solve, [graph("-a")])
                    await reached.wait()
                    nursery.start_soon(solve, b, graph("-b"))
                    await wait_all_tasks_blocked()
                    scope.cancel()
        opened.set()
    assert values == ["files"]
    assert world.calls.execs == ["local-a", "copy-a", "local-b"]


async def test_an_unstable_vertex_is_neither_looked_up_nor_stored(world: World, store: CountingStore) -> None:
    """A local directory: found by the content that its users read."""

    def graph(name: str) -> Edge:
        local = world.vertex("local", value="files", stable=False)
        return world.vertex(name, seed="copy", value="copied", inputs=[local], content=[0])

    for number in range(3):
        async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
            assert await value(job, graph(f"copy{number}")) == "copied"
    assert world.calls.execs == ["local", "copy0", "local", "local"]
    assert len(store._links) == 1


async def test_inputs_are_lent(world: World, store: CountingStore) -> None:
    seen: Sequence[Result | None] = ()

    class Keeping:
        is_bound = False

        def __init__(self, op: Any) -> None:
            self._op = op

        async def cache_map(self) -> object:
            return await self._op.cache_map()

        async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
            nonlocal seen
            seen = inputs
            return [world.ledger.new("made")]

    edge = world.vertex("v0", inputs=[world.const(1)])
    object.__setattr__(edge.vertex, "op", Keeping(edge.vertex.op))
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        assert await value(job, edge) == "made"
        with pytest.raises(AssertionError, match="after release"):
            unwrap(seen[0])


async def test_a_job_that_has_ended_solves_nothing(world: World, store: CountingStore) -> None:
    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, "job") as job:
            pass
        with pytest.raises(Exception, match="has ended"):
            await job.solve([world.const(1)])
