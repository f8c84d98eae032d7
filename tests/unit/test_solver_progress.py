"""What a job is told: who ran, who was cached, who was neither."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.errors import SolveError, SourceError
from buildengine.events import Event, LogEvent, Outcome, StatusEvent, VertexEvent, WarningEvent
from solver.job import open_job
from solver.progress import Progress
from solver.reporter import Reporter
from solver.scheduler import open_scheduler
from solver.vertex import Edge
from tests.fakes.solver_fixtures import store as store
from tests.fakes.solver_fixtures import world as world
from tests.fakes.solver_vertices import CountingStore, World


class Events(list[Event]):
    def of(self, edge: Edge) -> list[str]:
        """What was told of a vertex, in short."""
        told = []
        for event in self:
            if isinstance(event, VertexEvent):
                if event.digest == edge.vertex.digest:
                    assert event.name == edge.vertex.name
                    told.append("announced" if event.started is None else event.outcome.value)
            elif event.vertex == edge.vertex.digest:
                told.append(type(event).__name__)
        return told


async def build(store: CountingStore, *edges: Edge) -> Events:
    events = Events()
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job", events.append) as job:
        await job.solve(edges)
    return events


async def test_a_step_is_announced_started_and_done(world: World, store: CountingStore) -> None:
    low = world.const(1)
    top = world.sum(1, low)
    events = await build(store, top)
    for edge in (low, top):
        assert events.of(edge) == ["announced", "running", "done"]
    first, *_ = [event for event in events if isinstance(event, VertexEvent) and event.digest == top.vertex.digest]
    assert first.inputs == (low.vertex.digest,)


async def test_a_source_that_waits_for_a_server_is_shown(
    world: World, store: CountingStore, autojump_clock: trio.testing.MockClock
) -> None:
    async def wait() -> None:
        await trio.sleep(60)

    source = world.vertex("source", value=1, before_cache_map=wait)
    top = world.sum(1, source)
    events = Events()
    async with (
        open_scheduler(store, clock=trio.current_time) as scheduler,
        open_job(scheduler, "job", events.append) as job,
    ):
        began = trio.current_time()
        await job.solve([top])
    assert events.of(source) == ["announced", "running", "done", "running", "done"]
    waited = next(e for e in events if isinstance(e, VertexEvent) and e.completed is not None)
    assert waited.started is not None
    assert waited.completed is not None
    assert (round(waited.started - began), round(waited.completed - began)) == (0, 60)


async def test_times_are_the_clocks(world: World, store: CountingStore) -> None:
    ticks = itertools.count(100.0)
    events: list[Event] = []
    async with (
        open_scheduler(store, clock=lambda: next(ticks)) as scheduler,
        open_job(scheduler, "job", events.append) as job,
    ):
        await job.solve([world.const(1)])
    assert [(event.started, event.completed) for event in events if isinstance(event, VertexEvent)] == [
        (None, None),
        (100.0, None),
        (100.0, 101.0),
    ]


async def test_what_a_hit_covers_is_cached_as_far_as_it_has_a_record(world: World, store: CountingStore) -> None:
    def graph() -> list[Edge]:
        low = world.const(1, "low")
        gone = world.sum(1, low, name="gone")
        return [low, gone, world.sum(2, gone, name="top")]

    await build(store, graph()[-1])
    (key,) = [key for key, records in store._records.items() if records[0].payload.value == 2]
    store.forget(key)
    low, gone, top = graph()
    events = await build(store, top)
    assert events.of(top) == events.of(low) == ["announced", "cached"]
    assert events.of(gone) == ["announced"], "skipped, not cached: its record is gone"


async def test_what_a_hit_covers_is_told_inputs_first(world: World, store: CountingStore) -> None:
    def graph() -> list[Edge]:
        low = world.const(1, "low")
        left, right = world.sum(1, low, name="left"), world.sum(2, low, name="right")
        return [low, left, right, world.sum(3, left, right, left, name="top")]

    await build(store, graph()[-1])
    events = await build(store, graph()[-1])
    told = [event.name for event in events if isinstance(event, VertexEvent) and event.outcome is Outcome.CACHED]
    assert told == ["low", "left", "right", "top"]


async def test_a_local_source_is_done_and_what_uses_it_cached(world: World, store: CountingStore) -> None:
    def graph(session: str) -> list[Edge]:
        base, local = world.vertex("base", value="base"), world.vertex("local" + session, value="files", stable=False)
        copy = world.vertex("copy" + session, seed="copy", value="copied", inputs=[base, local], content=[1])
        return [base, local, copy, world.vertex("run" + session, seed="run", value="ran", inputs=[copy])]

    await build(store, graph("-1")[-1])
    base, local, copy, run = graph("-2")
    events = await build(store, run)
    assert [events.of(edge)[-1] for edge in (base, local, copy, run)] == ["cached", "done", "cached", "cached"]


async def test_what_was_executed_stays_done_when_a_hit_covers_it(world: World, store: CountingStore) -> None:
    """Two results, one of them cached above a vertex that the other one has executed."""

    def low() -> Edge:
        return world.const(1, "low")

    await build(store, world.sum(1, low(), name="top"))
    store.forget(next(key for key in store._records if key.startswith("root")))
    shared = low()
    events = Events()
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job", events.append) as job:
        await job.solve([shared])
        await job.solve([world.sum(1, shared, name="top")])
    assert events.of(shared) == ["announced", "running", "done"]


async def test_who_failed_who_was_cancelled_and_who_never_began(world: World, store: CountingStore) -> None:
    running = trio.Event()

    async def long() -> None:
        running.set()
        await trio.sleep_forever()

    async def fail() -> None:
        await running.wait()
        raise SourceError("no such file")

    bad, slow = world.vertex("bad", before_exec=fail), world.vertex("slow", before_exec=long)
    top = world.sum(0, bad, slow)
    events = Events()
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job", events.append) as job:
        with pytest.raises(SolveError):
            await job.solve([top])
    assert events.of(bad) == ["announced", "running", "failed"]
    assert events.of(slow) == ["announced", "running", "canceled"]
    assert events.of(top) == ["announced"]
    assert [event.error for event in events if isinstance(event, VertexEvent) and event.error] == ["no such file"]


async def test_a_source_that_fails_to_find_its_key_has_failed(world: World, store: CountingStore) -> None:
    async def fail() -> None:
        raise SourceError("no such image")

    bad = world.vertex("bad", before_cache_map=fail)
    events = Events()
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job", events.append) as job:
        with pytest.raises(SolveError):
            await job.solve([bad])
    assert events.of(bad) == ["announced", "running", "failed"]


async def test_an_op_that_says_something_while_it_finds_its_key_is_running(world: World, store: CountingStore) -> None:
    def graph() -> Edge:
        reporter = Reporter("?")

        async def resolve() -> None:
            reporter.status("resolve", current=1)
            await trio.lowlevel.checkpoint()

        edge = world.vertex("image", value=1, before_cache_map=resolve, reporter=reporter)
        reporter.vertex = edge.vertex.digest
        return edge

    edge = graph()
    assert (await build(store, edge)).of(edge) == [
        "announced", "running", "StatusEvent", "done", "running", "done"
    ]  # fmt: skip
    edge = graph()
    assert (await build(store, edge)).of(edge) == ["announced", "running", "StatusEvent", "done", "cached"]


@pytest.mark.parametrize("name", ["v0", "other"])
async def test_who_shares_a_step_hears_of_it_and_of_what_was_before(
    world: World, store: CountingStore, name: str
) -> None:
    """Under his own digest and name, where they are others."""
    reached, opened = trio.Event(), trio.Event()
    reporter = Reporter("")

    async def talk() -> None:
        reporter.log(1, b"early\n")
        reporter.status("layer", current=1, total=2)
        reporter.warn("careful")
        reached.set()
        await opened.wait()
        reporter.log(2, b"late\n")

    first = world.vertex("v0", seed="seed", value=1, before_exec=talk, reporter=reporter)
    reporter.vertex = first.vertex.digest
    second = world.vertex(name, seed="seed", value=2)
    told = {"a": Events(), "b": Events()}
    async with (
        open_scheduler(store) as scheduler,
        open_job(scheduler, "a", told["a"].append) as a,
        open_job(scheduler, "b", told["b"].append) as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.solve, [first])
        await reached.wait()
        nursery.start_soon(b.solve, [second])
        await wait_all_tasks_blocked()
        opened.set()
    story = ["announced", "running", "LogEvent", "StatusEvent", "WarningEvent", "LogEvent", "done"]
    assert told["a"].of(first) == story
    assert sorted(told["b"].of(second)) == sorted(story)
    assert {event.vertex for event in told["b"] if isinstance(event, LogEvent)} == {second.vertex.digest}


async def test_a_job_that_leaves_a_shared_step_is_told_that_it_was_cancelled_for_it(
    world: World, store: CountingStore
) -> None:
    reached, opened = trio.Event(), trio.Event()

    async def gate() -> None:
        reached.set()
        await opened.wait()

    edge = world.vertex("v0", value=1, before_exec=gate)
    told = {"a": Events(), "b": Events()}
    async with (
        open_scheduler(store) as scheduler,
        open_job(scheduler, "b", told["b"].append) as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(b.solve, [edge])
        await reached.wait()
        async with open_job(scheduler, "a", told["a"].append) as a:
            with trio.move_on_after(0):
                await a.solve([edge])
        opened.set()
    assert told["a"].of(edge) == ["announced", "running", "canceled"]
    assert told["b"].of(edge) == ["announced", "running", "done"]


async def test_a_record_that_cannot_be_used_is_warned_of(world: World, store: CountingStore) -> None:
    await build(store, world.const(1, "v0"))
    store.broken = True
    edge = world.const(1, "v0")
    events = await build(store, edge)
    assert events.of(edge) == ["announced", "WarningEvent", "running", "done"]


def test_of_a_long_output_the_end_is_kept(world: World) -> None:
    progress = Progress(world.const(1).vertex, lambda: 0.0)
    progress.report(VertexEvent(digest="d", name="n", started=1.0))
    for number in range(100):
        progress.report(LogEvent(vertex="d", stream=1, data=bytes([number]) * 10_000))
    for number in range(3):
        progress.report(StatusEvent(id="s", vertex="d", current=number))
    progress.report(WarningEvent(vertex="d", message="w"))
    heard: list[Event] = []
    progress.listen("late", heard.append)
    assert isinstance(heard[0], VertexEvent)
    assert heard[0].outcome is Outcome.RUNNING
    output = [event.data for event in heard if isinstance(event, LogEvent)]
    assert output[-1][0] == 99
    assert sum(map(len, output)) <= 256 << 10
    assert [event.current for event in heard if isinstance(event, StatusEvent)] == [2]
    progress.ignore("late")
    progress.report(WarningEvent(vertex="d", message="unheard"))
    assert sum(isinstance(event, WarningEvent) for event in heard) == 1


def test_progress_of_a_vertex_at_rest_is_a_run_of_its_own(world: World) -> None:
    """It ends when nothing is under way any more; who listens later hears of it as well."""
    edge = world.const(1)
    progress, events, late = Progress(edge.vertex, clock=itertools.count(1.0).__next__), Events(), Events()
    reporter = Reporter(edge.vertex.digest)
    reporter.bind(progress.report)
    progress.listen("a", events.append)
    progress.cached(0.0)
    for name, completed in (("one", None), ("two", None), ("one", 5.0), ("two", 6.0)):
        reporter.status(name, started=1.0, completed=completed)
    assert events.of(edge) == ["cached", "running", *["StatusEvent"] * 4, "done"]
    progress.listen("b", late.append)
    assert late.of(edge) == ["running", "StatusEvent", "StatusEvent", "done"]
