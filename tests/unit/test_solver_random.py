"""Random graphs against the plainest evaluator: whatever is cached, shared or cancelled, results are right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from buildengine.errors import InternalError
from solver.export import KeyGraph
from solver.job import Job, open_job
from solver.scheduler import open_scheduler
from solver.vertex import CacheSource, Edge
from tests.fakes.memory_source import MemoryCacheSource, told
from tests.fakes.solver_vertices import CountingStore, Hook, World, unwrap


@dataclass(frozen=True)
class Node:
    """`op` and the inputs' values decide the value; of the inputs in `content` the content enters the key."""

    op: int
    inputs: tuple[int, ...] = ()
    content: frozenset[int] = frozenset()
    ignore: bool = False
    stable: bool = True
    pauses: int = 0

    def value(self, inputs: list[object]) -> object:
        return (self.op, *inputs) if inputs else self.op


Plan = tuple[Node, ...]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    nodes: list[Node] = []
    for index in range(draw(st.integers(1, 9))):
        count = draw(st.integers(0, min(index, 3)))
        inputs = tuple([draw(st.integers(0, index - 1)) for _ in range(count)])
        content = frozenset([number for number in range(count) if draw(st.booleans())])
        stable = bool(inputs) or draw(st.integers(0, 3)) > 0
        pauses = draw(st.integers(0, 3))
        nodes.append(Node(op=draw(st.integers(0, 3)), inputs=inputs, content=content, stable=stable, pauses=pauses))
    return tuple(nodes)


def evaluate(plan: Plan) -> object:
    values: list[object] = []
    for node in plan:
        values.append(node.value([values[index] for index in node.inputs]))
    return values[-1]


def needed(plan: Plan) -> set[int]:
    found = {len(plan) - 1}
    for index in reversed(range(len(plan))):
        if index in found:
            found |= {*plan[index].inputs}
    return found


def graph(world: World, plan: Plan, name: str) -> Edge:
    edges: list[Edge] = []
    for index, node in enumerate(plan):
        edges.append(
            world.vertex(
                # like a digest: it says all of the definition, the inputs' included
                f"{name}/{index}" if not node.stable or not _stable(plan, index) else _digest(plan, index),
                seed=f"op{node.op}-{len(node.inputs)}-{sorted(node.content)}-{index if not node.stable else ''}",
                compute=lambda *values, node=node: [node.value([*values])],
                inputs=[edges[number] for number in node.inputs],
                content=sorted(node.content),
                ignore_cache=node.ignore,
                stable=node.stable,
                before_exec=_pausing(node.pauses),
            )
        )
    return edges[-1]


def _digest(plan: Plan, index: int) -> str:
    node = plan[index]
    return repr((node.op, sorted(node.content), [_digest(plan, number) for number in node.inputs]))


def _stable(plan: Plan, index: int) -> bool:
    return plan[index].stable and all(_stable(plan, number) for number in plan[index].inputs)


def _pausing(pauses: int) -> Hook:
    async def pause() -> None:
        for _ in range(pauses):
            await trio.lowlevel.checkpoint()

    return pause


async def solve(job: Job, edge: Edge, plan: Plan) -> None:
    (result,) = await job.solve([edge])
    assert unwrap(result) == evaluate(plan)


async def build(world: World, store: CountingStore, plan: Plan, name: str) -> list[str]:
    """What was executed."""
    world.calls.clear()
    async with open_scheduler(store) as scheduler:
        async with open_job(scheduler, name) as job:
            await solve(job, graph(world, plan, name), plan)
        statistics = scheduler.statistics()
        assert (statistics.vertices, statistics.executions, statistics.queued) == (0, 0, 0)
    return [*world.calls.execs]


def finish(world: World, store: CountingStore) -> None:
    store.close()
    assert world.ledger.live == 0


@settings(max_examples=40)
@given(plans())
def test_every_vertex_executes_at_most_once_and_a_second_build_executes_nothing(plan: Plan) -> None:
    async def main() -> None:
        world, store = World(), CountingStore()
        first = await build(world, store, plan, "a")
        assert len(first) == len(set(first)) <= len(needed(plan))
        second = await build(world, store, plan, "a")
        if all(node.stable for node in plan):
            assert second == []
            assert store.loads <= 1
        finish(world, store)

    trio.run(main)


@settings(max_examples=40)
@given(plans(), st.data())
def test_after_a_change_results_are_right_and_only_what_depends_on_it_executes(plan: Plan, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(plan) - 1))
    changed = (*plan[:index], replace(plan[index], op=plan[index].op + 10), *plan[index + 1 :])
    lost = data.draw(st.booleans())

    async def main() -> None:
        world, store = World(), CountingStore()
        await build(world, store, plan, "a")
        if lost:  # some records are gone; their keys are not
            for key in sorted(store._records)[::2]:
                store.forget(key)
        executed = await build(world, store, changed, "b")
        assert len(executed) == len(set(executed))
        dependants = {index}
        for number in range(index, len(plan)):
            if dependants & {*plan[number].inputs}:
                dependants.add(number)
        if all(node.stable for node in plan) and not lost:
            assert {*executed} <= {_digest(changed, number) for number in dependants}
        assert await build(world, store, plan, "a") == [] or lost or not all(node.stable for node in plan)
        finish(world, store)

    trio.run(main)


async def exported(world: World, store: CountingStore, plan: Plan, name: str, *sources: CacheSource) -> KeyGraph:
    """Build it, and how its result is found."""
    async with open_scheduler(store) as scheduler, open_job(scheduler, name) as job:
        job.sources += sources
        edge = graph(world, plan, name)
        await solve(job, edge, plan)
        return job.key_graph(edge)


@settings(max_examples=100)
@given(plans(), st.data())
def test_with_the_cache_of_another_store_results_are_right(plan: Plan, data: st.DataObject) -> None:
    """One that has built something else before, and nothing; and it is exported again as it came."""
    index = data.draw(st.integers(0, len(plan) - 1))
    changed = (*plan[:index], replace(plan[index], op=plan[index].op + 10), *plan[index + 1 :])
    is_stable = all(node.stable for node in plan)

    async def main() -> None:
        world, there, here, empty = World(), CountingStore(), CountingStore(), CountingStore()
        first, second = MemoryCacheSource(), MemoryCacheSource()
        first.fill(await exported(world, there, plan, "a"))
        await build(world, here, changed, "b")
        await exported(world, here, plan, "c", first)
        world.calls.clear()
        second.fill(await exported(world, empty, plan, "d", first))
        if is_stable:
            bare = {_digest(plan, number) for number, node in enumerate(plan) if not node.inputs}
            assert {*world.calls.execs} <= bare  # what begins with nothing has no result there
            assert told(second.graph) == told(first.graph)
        await exported(world, empty, changed, "e", second)
        assert not await build(world, empty, plan, "f") or not is_stable
        for store in (there, here, empty):
            store.close()
        assert world.ledger.live == 0

    trio.run(main)


@settings(max_examples=40)
@given(plans(), st.data())
def test_whatever_ignores_the_cache_executes_with_all_that_uses_it_by_definition(
    plan: Plan, data: st.DataObject
) -> None:
    ignored = data.draw(st.sets(st.integers(0, len(plan) - 1), max_size=2))
    plain = tuple([replace(node, stable=True, content=frozenset()) for node in plan])
    forced = tuple([replace(node, ignore=number in ignored) for number, node in enumerate(plain)])

    async def main() -> None:
        world, store = World(), CountingStore()
        await build(world, store, plain, "a")
        fresh = set(ignored)
        for number, node in enumerate(forced):
            if fresh & {*node.inputs}:
                fresh.add(number)
        executed = await build(world, store, forced, "a")
        again = {_digest(forced, number) for number in fresh & needed(forced)}
        # equal vertices may share: each is executed, or another with its key is
        assert {*executed} <= again
        assert bool(executed) == bool(again)
        finish(world, store)

    trio.run(main)


@settings(max_examples=100)
@given(
    plans(),
    st.sets(st.integers(0, 8), max_size=2),
    st.integers(0, 30),
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from([None, 1, 2]),
)
def test_jobs_that_share_and_leave_do_not_disturb_each_other(
    plan: Plan, ignored: set[int], first_leaves: int, second_joins: int, two_engines: bool, slots: int | None
) -> None:
    forced = tuple([replace(node, ignore=number in ignored) for number, node in enumerate(plan)])

    async def main() -> None:
        world, store = World(), CountingStore()

        async def stay(job: Job, plan: Plan, *, after: int) -> None:
            await _pausing(after)()
            await solve(job, graph(world, plan, job.id), plan)

        ended: list[str] = []

        async def leave(job: Job, scope: trio.CancelScope) -> None:
            with scope:
                try:
                    await solve(job, graph(world, plan, "leaving"), plan)
                except InternalError as error:
                    ended.append(error.message)  # its job's block may end before it is cancelled

        async with (
            open_scheduler(store, max_parallelism=slots) as one,
            open_scheduler(store) as two,
            open_job(one, "a") as a,
            open_job(two if two_engines else one, "b") as b,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(lambda: stay(a, plan, after=0))
            nursery.start_soon(lambda: stay(b, forced, after=second_joins))
            async with open_job(one, "leaving") as leaving:
                scope = trio.CancelScope()
                nursery.start_soon(leave, leaving, scope)
                await _pausing(first_leaves)()
                scope.cancel()
        assert ended in ([], ["job leaving has ended"])
        finish(world, store)

    trio.run(main)
