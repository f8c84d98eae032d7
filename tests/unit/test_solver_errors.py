"""What fails, whose failure it is, who hears of it, and what stays behind: nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.digest import Digest
from buildengine.errors import ExecFailed, InternalError, Location, SolveError, SourceError, SourceRange, StoreError
from solver.job import Job, open_job
from solver.scheduler import open_scheduler
from solver.vertex import CacheMap, Dep, Edge, InputKeys, Result
from tests.fakes.solver_fixtures import store as store
from tests.fakes.solver_fixtures import world as world
from tests.fakes.solver_vertices import CountingStore, Hook, World, unwrap


def raising(error: BaseException) -> Hook:
    async def hook() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return hook


def location(name: str) -> Location:
    return Location(filename=name, ranges=(SourceRange(start_line=3, end_line=3),), text=b"FROM scratch\n")


async def failure(job: Job, *edges: Edge) -> SolveError:
    with pytest.raises(SolveError) as caught:
        await job.solve(edges)
    return caught.value


@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
async def test_error_returns(world: World, store: CountingStore, where: str) -> None:
    """The job fails with the vertex's own error, located, however far below it is."""
    original = SourceError("no such image", hint="check the name")
    bad = world.vertex("bad", locations=(location("Dockerfile"),), **{where: raising(original)})
    edge = world.sum(1, world.sum(2, bad), world.const(2))
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        error = await failure(job, edge)
    assert isinstance(error.first, SourceError)
    assert (error.message, error.hint, error.vertex) == ("no such image", "check the name", bad.vertex.digest)
    assert error.locations == (location("Dockerfile"),)
    assert len(error.failures) == 1
    assert original.vertex is None, "the op's own error is shared between jobs and stays as it is"


async def test_each_job_gets_the_location_in_its_own_file(world: World, store: CountingStore) -> None:
    def graph(file: str) -> Edge:
        return world.vertex("bad", locations=(location(file),), before_exec=raising(SourceError("no")))

    async with open_scheduler(store) as scheduler, open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:
        errors = [await failure(a, graph("A")), await failure(b, graph("B"))]
    assert [error.locations[0].filename for error in errors] == ["A", "B"]


async def test_a_failure_is_remembered_while_the_vertex_is_active_and_not_longer(
    world: World, store: CountingStore
) -> None:
    bad = world.vertex("bad", before_exec=raising(SourceError("no")))
    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, "a") as a, open_job(scheduler, "b") as b:
            await failure(a, bad)
            await failure(a, world.sum(1, bad))
            await failure(b, bad)
            assert world.calls.execs == ["bad"]
        async with open_job(scheduler, "c") as c:
            await failure(c, bad)
    assert world.calls.execs == ["bad", "bad"]
    assert store._records == {}


async def test_another_vertex_with_the_same_key_may_try_again(world: World, store: CountingStore) -> None:
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        await failure(job, world.vertex("v0", seed="seed", before_exec=raising(SourceError("no"))))
        (result,) = await job.solve([world.vertex("v1", seed="seed", value="yes")])
        assert unwrap(result) == "yes"


async def test_a_failed_execution_fails_for_all_who_share_it_under_their_own_names(
    world: World, store: CountingStore
) -> None:
    gate = trio.Event()

    async def fail() -> None:
        await gate.wait()
        raise SourceError("no")

    edges = [world.vertex(name, seed="seed", before_exec=fail, locations=(location(name),)) for name in "ab"]
    errors: list[SolveError] = []

    async def solve(job: Job, edge: Edge) -> None:
        errors.append(await failure(job, edge))

    async with (
        open_scheduler(store) as scheduler,
        open_job(scheduler, "a") as a,
        open_job(scheduler, "b") as b,
        trio.open_nursery() as nursery,
    ):
        for job, edge in zip((a, b), edges, strict=True):
            nursery.start_soon(solve, job, edge)
        await wait_all_tasks_blocked()
        gate.set()
    assert len(world.calls.execs) == 1
    assert {(error.vertex, error.locations[0].filename) for error in errors} == {
        (edge.vertex.digest, edge.vertex.name) for edge in edges
    }


async def test_the_first_failure_cancels_independent_branches(world: World, store: CountingStore) -> None:
    cancelled = False
    running = trio.Event()

    async def long() -> None:
        nonlocal cancelled
        try:
            running.set()
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled = True
            raise

    async def fail() -> None:
        await running.wait()
        raise ExecFailed("process failed", argv=("false",), exit_code=1)

    bad, slow = world.vertex("bad", before_exec=fail), world.vertex("slow", before_exec=long)
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        error = await failure(job, world.sum(0, bad), world.sum(1, slow))
        assert cancelled
        assert isinstance(error.first, ExecFailed)
        assert error.first.exit_code == 1


async def test_failures_of_one_moment_are_collected(world: World, store: CountingStore) -> None:
    moment = trio.Event()

    def failing(name: str) -> Hook:
        async def fail() -> None:
            await moment.wait()
            raise SourceError(name)

        return fail

    top = world.sum(0, *[world.vertex(name, before_exec=failing(name)) for name in ("one", "two")])
    errors: list[SolveError] = []

    async def solve(job: Job) -> None:
        errors.append(await failure(job, top))

    async with (
        open_scheduler(store) as scheduler,
        open_job(scheduler, "job") as job,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(solve, job)
        await wait_all_tasks_blocked()
        moment.set()
    assert {failure.message for failure in errors[0].failures} == {"one", "two"}
    assert errors[0].__cause__ is errors[0].first


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (ExceptionGroup("nursery", [SourceError("a"), ExceptionGroup("", [SourceError("b")])]), ["a", "b"]),
        (SolveError((SourceError("inner"),)), ["inner"]),
        (ZeroDivisionError("oops"), ["unexpected ZeroDivisionError: oops"]),
    ],
)
async def test_what_an_op_raises_becomes_build_errors(
    world: World, store: CountingStore, error: Exception, messages: list[str]
) -> None:
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        caught = await failure(job, world.vertex("bad", before_exec=raising(error)))
    assert [one.message for one in caught.failures] == messages
    if isinstance(error, ZeroDivisionError):
        assert isinstance(caught.first, InternalError)
        assert caught.first.__cause__ is error


async def test_an_error_that_comes_of_a_cancellation_is_not_remembered(world: World, store: CountingStore) -> None:
    tries = 0

    async def killed() -> None:
        nonlocal tries
        tries += 1
        try:
            if tries == 1:
                await trio.sleep_forever()
        except trio.Cancelled:
            raise ExecFailed("killed", signal=9) from None

    edge = world.vertex("v0", value="fine", before_exec=killed)
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.solve, [edge])
                await wait_all_tasks_blocked()
                scope.cancel()
        (result,) = await job.solve([edge])
        assert unwrap(result) == "fine"


async def _broken_load(_record: object) -> Result | None:
    raise OSError("bug")


async def _broken_save(_key: str, _result: Result) -> None:
    await trio.lowlevel.checkpoint()
    raise StoreError("no space left")


def _broken_targets(_op: Digest, _output: int, _index: int, _keys: InputKeys) -> frozenset[str]:
    raise StoreError("the metadata is damaged")


@pytest.mark.parametrize(
    ("method", "broken", "message"),
    [
        ("load", _broken_load, "unexpected OSError: bug"),
        ("save", _broken_save, "no space left"),
        ("targets", _broken_targets, "the metadata is damaged"),
    ],
)
async def test_a_store_that_fails_fails_the_vertex(
    world: World, store: CountingStore, method: str, broken: Callable[..., object], message: str
) -> None:
    def graph() -> Edge:
        return world.sum(1, world.const(2))

    async with open_scheduler(store) as scheduler:
        if method == "load":
            async with open_job(scheduler, "first") as job:
                await job.solve([graph()])
        setattr(store, method, broken)
        async with open_job(scheduler, "job") as job:
            assert (await failure(job, graph())).message == message


async def test_an_op_that_makes_too_little_or_says_too_much_is_our_bug(world: World, store: CountingStore) -> None:
    class Talkative:
        is_bound = False

        async def cache_map(self) -> CacheMap:
            return CacheMap(digest=Digest.sha256(b"x"), deps=(Dep(), Dep()))

        async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
            return []

    edge = world.vertex("v0", inputs=[world.const(1)])
    object.__setattr__(edge.vertex, "op", Talkative())
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        assert "2 deps for 1 inputs" in str(await failure(job, edge))
        assert "not 8" in str(await failure(job, Edge(vertex=world.const(1).vertex, index=7)))


async def test_what_the_blocks_raise_passes_unchanged(store: CountingStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_scheduler(store) as scheduler, open_job(scheduler, "job"):
            raise ZeroDivisionError
    with pytest.raises(ExceptionGroup, match="mine"):
        async with open_scheduler(store):
            raise ExceptionGroup("mine", [ValueError(), KeyError()])


@pytest.mark.parametrize("where", ["before_cache_map", "before_exec"])
async def test_cancelled_from_outside_everything_ends_in_order(world: World, store: CountingStore, where: str) -> None:
    """Ctrl-C reaches jobs and scheduler at once; still jobs end first, and find their results to release."""
    edge = world.sum(1, world.vertex("slow", **{where: trio.sleep_forever}), world.const(2))
    with trio.CancelScope() as scope:
        async with (
            open_scheduler(store) as scheduler,
            open_job(scheduler, "job") as job,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(job.solve, [edge])
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert scheduler.statistics().vertices == 0


async def test_cancelled_before_it_has_started_it_ends(store: CountingStore) -> None:
    """Ctrl-C while the engine opens: nobody has got the scheduler who could end it."""
    with trio.move_on_after(5) as patience, trio.CancelScope() as scope:
        scope.cancel()
        async with open_scheduler(store):
            raise AssertionError("it opened for somebody who had left")
    assert scope.cancelled_caught
    assert not patience.cancelled_caught


async def test_a_scheduler_that_breaks_says_so_and_leaves_nobody_waiting(world: World, store: CountingStore) -> None:
    async def solve() -> None:
        async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
            scheduler._advance = lambda edge: 1 / 0
            await job.solve([world.const(1)])

    with pytest.raises(InternalError, match="the scheduler has failed"):
        await solve()
