"""One build's view of the solver: what it wants solved, what it is told meanwhile, and what it holds.

Results belong to the job: they are there until its block ends; who needs one longer clones it. Jobs share what
they have in common and notice nothing of each other: a job that fails or leaves takes nothing from the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from buildengine.digest import Digest
from buildengine.errors import BuildError, InternalError, SolveError
from buildengine.events import Event, EventSink, Outcome, VertexEvent, discard
from solver.active import ActiveEdge, ActiveVertex, below
from solver.export import KeyGraph, key_graph
from solver.failures import Failure, located
from solver.messages import Level
from solver.progress import announcement, as_seen_by
from solver.scheduler import Scheduler
from solver.steps import SolvedStep, solved_steps
from solver.vertex import CacheRecord, CacheSource, Edge, Result, Vertex


@asynccontextmanager
async def open_job(scheduler: Scheduler, id: str, sink: EventSink = discard) -> AsyncIterator[Job]:
    """A job, alive for this block. Its events go to `sink`, which must not block or raise.

    When the block ends, what runs for nobody else is cancelled and has ended, and the job's results are released.
    """
    job = Job(scheduler, id, sink)
    try:
        yield job
    finally:
        with trio.CancelScope(shield=True):
            await job.close()


class Job:
    def __init__(self, scheduler: Scheduler, id: str, sink: EventSink) -> None:
        self.id = id
        self.closed = False
        self.sources: list[CacheSource] = []  # what is solved from now on is also looked for there
        self._scheduler = scheduler
        self._sink = sink
        self._active: dict[str, ActiveVertex] = {}
        self._vertices: dict[str, Vertex] = {}
        self._running: dict[str, VertexEvent] = {}
        self._solves: dict[_Solve, None] = {}

    async def solve(self, edges: Sequence[Edge]) -> tuple[Result | None, ...]:
        """The result of each edge; None is the empty tree. They stay the job's: clone what is to outlive it.

        Raises SolveError with everything that failed; on the first failure the rest of this call is cancelled.
        May be called again, also from an op of this job.
        """
        if self.closed:
            raise InternalError(f"job {self.id} has ended")
        roots = self._scheduler.attach(self, edges)
        solve = _Solve(roots)
        self._solves[solve] = None
        try:
            solve.want()
            await solve.ended.wait()
        finally:
            del self._solves[solve]
            solve.unwant()
            if not solve.complete:
                with trio.CancelScope(shield=True):
                    # its own vertices only: this may be called by an op, which must not wait for its own end
                    await self._scheduler.settle(below(roots))
        if solve.aborted:
            raise InternalError(f"job {self.id} has ended")
        if solve.failures:
            failures = self._located(solve.failures)
            raise SolveError(failures) from failures[0]
        return tuple([root.result for root in roots])

    def key_graph(self, edge: Edge) -> KeyGraph:
        """How the result of `edge`, which this job has solved, is found: what is exported as its cache."""
        return key_graph(self._scheduler.attach(self, [edge])[0])

    def pins(self) -> dict[Digest, str]:
        """What the sources of this job are, as far as their keys were asked for (`CacheMap.pin`)."""
        found = {}
        for active in self._active.values():
            outcome = active.cache_map.outcome
            if outcome is not None and outcome.value is not None and outcome.value.pin:
                found[active.vertex.digest] = outcome.value.pin
        return found

    def steps(self) -> Iterator[SolvedStep]:
        """What became of each vertex so far, inputs before users."""
        return solved_steps(self._active.values())

    def results(self) -> Iterator[tuple[Edge, Result | CacheRecord]]:
        """All that there is of this job's vertices: results, lent until the job goes on, and the store's records of
        what was passed over because something made from it was found."""
        for active in self._active.values():
            for one in active.edges:
                found = one.result or one.passed_over()
                if found is not None:
                    yield Edge(vertex=active.vertex, index=one.index), found

    async def close(self) -> None:
        """Leave. What runs for this job alone ends before this returns."""
        self.closed = True
        for solve in [*self._solves]:
            solve.abort()
        await self._scheduler.settle(self._active.values())
        for active in self._active.values():
            await active.turns.dismiss(self)
        self._scheduler.detach(self, self._active.values())
        self._active.clear()
        for event in [*self._running.values()]:
            self._tell(replace(event, completed=self._scheduler.clock(), outcome=Outcome.CANCELED))

    def attached(self, active: ActiveVertex, vertex: Vertex) -> None:
        """A vertex of this job is in the graph. If others have it already, this job hears what it has missed."""
        self._active[active.identity] = active
        self._vertices[vertex.digest] = vertex
        self._tell(announcement(vertex))
        active.progress.listen(self, partial(self._tell_of, vertex))

    def _tell_of(self, vertex: Vertex, event: Event) -> None:
        self._tell(as_seen_by(event, vertex))

    def _tell(self, event: Event) -> None:
        if isinstance(event, VertexEvent):
            if event.started is not None and event.completed is None:
                self._running[event.digest] = event
            else:
                self._running.pop(event.digest, None)
        self._sink(event)

    def _located(self, failures: Iterable[Failure]) -> tuple[BuildError, ...]:
        return tuple([located(failure, self._vertices[failure.vertex].options.locations) for failure in failures])


class _Solve:
    """One call of `solve`: the consumer of its root edges."""

    def __init__(self, roots: list[ActiveEdge]) -> None:
        self.ended = trio.Event()
        self.failures: dict[Failure, None] = {}
        self.aborted = False
        self._roots = roots
        self._missing = set(range(len(roots)))

    @property
    def complete(self) -> bool:
        return not self._missing and not self.failures

    def want(self) -> None:
        for index, root in enumerate(self._roots):
            root.want(self, index, Level.RESULT)
        self._check()

    def unwant(self) -> None:
        for index, root in enumerate(self._roots):
            root.unwant(self, index)

    def abort(self) -> None:
        """The job ends while this is going on."""
        self.aborted = True
        self.unwant()
        self.ended.set()

    def input_answered(self, index: int, producer: ActiveEdge) -> None:
        self.failures.update({cause: None for cause in producer.state.causes if isinstance(cause, Failure)})
        if producer.state.level is Level.RESULT:
            self._missing.discard(index)
        self._check()

    def _check(self) -> None:
        if self.failures or not self._missing:
            self.ended.set()
