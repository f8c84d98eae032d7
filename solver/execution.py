"""Executing an op: once for all edges that stand for the same thing.

Edges of different vertices may be equal: two jobs, each with its own local source but the same files in it. It
shows as soon as all their inputs are there: the store gives both one key. Here they meet, and one op runs for
all. Since nothing is left to wait for at that moment, nobody can wait for himself through somebody else:
BuildKit, which merges edges as soon as keys are equal, has to guard against such cycles.

Other processes are kept apart by `CacheStore.exclusive`: whoever gets it second looks again before it executes.

A fresh edge (`edge.is_fresh`) does not take what was made for one that is not; the other way round it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import trio

from buildengine.errors import InternalError
from solver import edge
from solver.active import ActiveEdge, ActiveVertex
from solver.failures import may_differ
from solver.messages import Executed, LookAgain
from solver.once import Once, Outcome
from solver.vertex import CacheStore, Result

Results = list[Result | None]
_Index = dict[tuple[str, bool], "Execution"]


class Executions:
    """All executions that some edge has a part in, by key."""

    def __init__(self, nursery: trio.Nursery, store: CacheStore, slots: trio.CapacityLimiter | None) -> None:
        self.nursery = nursery
        self.store = store
        self._slots = slots
        self._index: _Index = {}

    def __len__(self) -> int:
        return len(self._index)

    def join(self, one: ActiveEdge) -> None:
        """Execute for this edge, or share what is executed for another. `Executed` or `LookAgain` follows."""
        one.keys = one.add_keys(one.index)
        # the op runs for all its outputs at once, so it is known by the key of the first
        first = one.keys if one.index == 0 else one.add_keys(0)
        key = first[0] if first else f"vertex:{one.vertex.identity}"
        fresh = not first or edge.is_fresh(one.state)
        execution = self._index.get((key, True)) or (None if fresh else self._index.get((key, False)))
        if execution is None:
            execution = self._index[key, fresh] = Execution(self, key, fresh)
        execution.join(one)

    def forget(self, execution: Execution) -> None:
        """Nobody finds it any more; who has a part in it keeps it."""
        if self._index.get(execution.id) is execution:
            del self._index[execution.id]

    def alone(self, id: tuple[str, bool]) -> AbstractAsyncContextManager[None]:
        """No other process executes this key. A fresh one takes nothing from others: why should it wait for them?"""
        key, fresh = id
        return nullcontext() if fresh else self.store.exclusive(key)

    def slot(self, one: ActiveEdge) -> AbstractAsyncContextManager[None]:
        """Held only while the op runs: an edge that waits holds none."""
        if self._slots is None or not one.vertex.vertex.occupy_slot:
            return nullcontext()
        return self._slots


class Execution:
    """One call of an op's `exec`, and its results for as long as some edge has a part in it."""

    def __init__(self, executions: Executions, key: str, fresh: bool) -> None:
        self._executions = executions
        self.id = (key, fresh)
        self.once: Once[Results | None] = Once(executions.nursery, self._compute)
        self._parts: dict[ActiveEdge, None] = {}  # in order: the first one's op runs
        self._runner: ActiveEdge | None = None
        self._failed: set[ActiveVertex] = set()  # they have had their turn

    def join(self, one: ActiveEdge) -> None:
        if one.execution is not None and one.execution is not self:
            one.execution.drop(one)
        one.execution = self
        if one not in self._parts:
            self._parts[one] = None
            if self._runner is not None:
                self._link(self._runner, one)
        self.once.join(one, lambda outcome: self._deliver(one, outcome))

    def drop(self, one: ActiveEdge) -> None:
        """The edge is gone. The results go with the last one."""
        self.once.leave(one)
        del self._parts[one]
        if self._runner is not None and self._runner is not one:
            self._runner.vertex.progress.ignore(one.vertex)
        if not self._parts:
            self._executions.forget(self)
            if self.once.outcome is not None and self.once.outcome.value:
                _release(self.once.outcome.value)

    def _deliver(self, one: ActiveEdge, outcome: Outcome[Results | None]) -> None:
        if outcome.error is not None:
            self._executions.forget(self)  # the vertices keep the failure; another vertex may try anew
            one.fail(outcome.error)
        elif outcome.value is None:
            self._executions.forget(self)
            one.post(LookAgain())
        elif one.index >= len(outcome.value):
            one.fail(
                InternalError(f"{one.vertex.vertex.name} has made {len(outcome.value)} outputs, not {one.index + 1}")
            )
        else:
            one.hold(_clone(outcome.value[one.index]), one.keys)
            one.vertex.progress.settled = True
            one.post(Executed(keys=one.keys))

    async def _compute(self) -> Results | None:
        """The results; None when another process has stored them meanwhile.

        As the jobs of one vertex have their turns (`solver.turns`), so have the vertices.
        """
        self._failed.clear()
        while True:
            try:
                async with self._executions.alone(self.id), self._executions.slot(self._next_runner()):
                    runner = self._take_over()
                    if not self.id[1] and runner.look_again():
                        return None
                    return await self._execute(runner)
            except Exception as error:
                if self._runner is None or not self._goes_on_without(self._runner, error):
                    raise
                self._failed.add(self._runner.vertex)

    def _next_runner(self) -> ActiveEdge:
        return next(self._candidates(), next(iter(self._parts)))

    def _candidates(self) -> Iterator[ActiveEdge]:
        return (one for one in self._parts if not one.vertex.abandoned and one.vertex not in self._failed)

    def _goes_on_without(self, runner: ActiveEdge, error: Exception) -> bool:
        others = any(one.vertex is not runner.vertex for one in self._candidates())
        return others and (runner.vertex.abandoned or may_differ(error))

    def _take_over(self) -> ActiveEdge:
        """Whose op runs. Chosen only now: while this waited, jobs may have left with their inputs."""
        if self._runner is not None:
            for one in self._parts:
                self._runner.vertex.progress.ignore(one.vertex)
        self._runner = self._next_runner()
        for one in self._parts:
            self._link(self._runner, one)
        return self._runner

    async def _execute(self, runner: ActiveEdge) -> Results:
        vertex = runner.vertex
        inputs = [_clone(producer.result) for producer in vertex.inputs]
        try:
            with vertex.progress.activity(announce=True, excuse=partial(self._is_excused, runner)):
                results = [*await vertex.execute(inputs)]
                await self._save(runner, results)
                return results
        finally:
            _release(inputs)

    def _is_excused(self, runner: ActiveEdge, error: Exception) -> bool:
        """The failure is told as a cancellation: somebody else does the work, or nobody is there to be told."""
        return runner.vertex.abandoned or self._goes_on_without(runner, error)

    async def _save(self, runner: ActiveEdge, results: Results) -> None:
        try:
            for output, result in enumerate(results):
                if result is not None:
                    for key in runner.keys if output == runner.index else runner.add_keys(output):
                        await self._executions.store.save(key, result)
        except BaseException:
            _release(results)
            raise

    def _link(self, runner: ActiveEdge, one: ActiveEdge) -> None:
        """What is told about the runner's vertex is told about this one's, too."""
        if runner.vertex is not one.vertex:
            runner.vertex.progress.listen(one.vertex, one.vertex.progress.publish)


def _clone(result: Result | None) -> Result | None:
    return None if result is None else result.clone()


def _release(results: Results) -> None:
    for result in results:
        if result is not None:
            result.release()
