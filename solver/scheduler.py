"""The driver of the edge machines: it carries out what they request and tells them what came of it.

One task steps the machines: their events wait in a queue, and all that have come for an edge are decided on at
once. Nothing is awaited there; what may block runs as a `Once`, in a task of its own, and posts an event at its end.
So walking a graph costs no tasks, and no graph is too deep for the stack.

Jobs bring vertices in (`attach`) and take them away (`detach`). Demand comes from the jobs' roots and flows down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from buildengine.digest import Digest
from buildengine.errors import BuildError, InternalError
from buildengine.events import WarningEvent
from buildengine.values import dataclass
from solver import messages
from solver.active import ActiveEdge, ActiveVertex
from solver.edge import step
from solver.execution import Executions
from solver.lookup import FoundRecord, Lookup
from solver.messages import CacheMapLoaded, ContentKey, RecordLoaded, RecordMissing
from solver.once import Once, Outcome
from solver.vertex import CacheMap, CacheRecord, CacheStore, Edge, Result, Vertex

if TYPE_CHECKING:
    from solver.job import Job

_STEPS_BETWEEN_CHECKPOINTS = 500  # about 10 ms


@asynccontextmanager
async def open_scheduler(
    cache: CacheStore, *, max_parallelism: int | None = None, clock: Callable[[], float] = time.time
) -> AsyncIterator[Scheduler]:
    """A scheduler for any number of jobs (`job.open_job`), alive for this block; its jobs end inside the block.

    `max_parallelism` limits how many ops execute at once.
    """
    slots = trio.CapacityLimiter(max_parallelism) if max_parallelism is not None else None
    try:
        async with trio.open_nursery() as nursery:
            scheduler: Scheduler = await nursery.start(_serve, cache, slots, clock)
            try:
                yield scheduler
            finally:
                scheduler.nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # the nursery wraps what the block raises


async def _serve(
    cache: CacheStore,
    slots: trio.CapacityLimiter | None,
    clock: Callable[[], float],
    *,
    task_status: trio.TaskStatus[Scheduler],
) -> None:
    """The tasks of a scheduler. Shielded: jobs need them to end in order, whatever cancels the jobs."""
    try:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                scheduler = Scheduler(nursery, cache, slots, clock)
                task_status.started(scheduler)
                # Whoever was cancelled while it started us does not take us: then nobody would ever end a shield.
                await trio.lowlevel.checkpoint_if_cancelled()
                scope.shield = True
                await scheduler.run()
    except ExceptionGroup as group:
        bug = group.exceptions[0]
        raise InternalError(f"the scheduler has failed: {bug}") from bug


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How much is held at this moment."""

    vertices: int
    executions: int
    queued: int


class Scheduler:
    """The graph of all jobs, and the queue of what has happened in it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        cache: CacheStore,
        slots: trio.CapacityLimiter | None,
        clock: Callable[[], float],
    ) -> None:
        self.nursery = nursery
        self.clock = clock
        self._cache = cache
        self._active: dict[str, ActiveVertex] = {}
        self._executions = Executions(nursery, cache, slots)
        self._queue: deque[ActiveEdge] = deque()
        self._stops: dict[tuple[ActiveEdge, object], messages.Activity] = {}
        self._woken = trio.Event()
        self._quiet = trio.lowlevel.ParkingLot()
        self._stopped = False
        self._carry_out: dict[type, Callable[[ActiveEdge, Any], None]] = {
            messages.LoadCacheMap: self._load_cache_map,
            messages.WantInput: self._want_input,
            messages.ComputeContentKey: self._compute_content_key,
            messages.LoadRecord: self._load_record,
            messages.Execute: self._execute,
            messages.Stop: self._stop,
            messages.Lookup: self._look_up,
            messages.Answer: self._answer,
        }

    def statistics(self) -> Statistics:
        return Statistics(vertices=len(self._active), executions=len(self._executions), queued=len(self._queue))

    # --- the graph

    def attach(self, job: Job, roots: Sequence[Edge]) -> list[ActiveEdge]:
        """Bring the graphs under these edges in, for `job`."""
        known: dict[int, ActiveVertex] = {}
        stack = [edge.vertex for edge in reversed(roots)]
        while stack:
            vertex = stack[-1]
            if id(vertex) in known:
                stack.pop()
            elif missing := [edge.vertex for edge in vertex.inputs if id(edge.vertex) not in known]:
                stack += reversed(missing)
            else:
                inputs = tuple([known[id(edge.vertex)].edge(edge.index) for edge in vertex.inputs])
                known[id(vertex)] = self._activate(job, vertex, inputs)
        return [known[id(edge.vertex)].edge(edge.index) for edge in roots]

    def _activate(self, job: Job, vertex: Vertex, inputs: tuple[ActiveEdge, ...]) -> ActiveVertex:
        identity = _identity(vertex, inputs)
        active = self._active.get(identity)
        if active is None:
            active = self._active[identity] = ActiveVertex(self, identity, vertex, inputs)
        if job not in active.jobs:
            active.jobs[job] = vertex
            if vertex.reporter is not None:
                vertex.reporter.bind(active.progress.report)
            job.attached(active, vertex)
        return active

    def detach(self, job: Job, vertices: Iterable[ActiveVertex]) -> None:
        """`job` has left. What nobody else has goes, with all its results."""
        for active in vertices:
            active.jobs.pop(job, None)
            active.progress.ignore(job)
            if not active.jobs and self._active.get(active.identity) is active:
                del self._active[active.identity]
                for edge in active.edges:
                    edge.drop()

    # --- the queue

    def wake(self, edge: ActiveEdge) -> None:
        """Something has been put into the edge's inbox."""
        if not edge.queued:
            edge.queued = True
            self._queue.append(edge)
            self._woken.set()

    async def run(self) -> None:
        """Step the machines, until cancelled."""
        try:
            while True:
                await self._woken.wait()
                self._woken = trio.Event()
                await self._step_all()
                self._quiet.unpark_all()
        finally:
            self._stopped = True
            self._quiet.unpark_all()

    async def _step_all(self) -> None:
        steps = 0
        while self._queue or self._stops:
            if self._queue:
                self._advance(self._queue.popleft())
            else:
                self._stop_now()
            steps += 1
            if steps % _STEPS_BETWEEN_CHECKPOINTS == 0:
                await trio.lowlevel.checkpoint()

    async def settle(self, vertices: Iterable[ActiveVertex]) -> None:
        """Until all events of before are worked off, and everything cancelled for these vertices has ended."""
        if (self._queue or self._stops) and not self._stopped:
            await self._quiet.park()
        for active in vertices:
            for computation in active.computations():
                await computation.wait_ended()

    def _advance(self, edge: ActiveEdge) -> None:
        edge.queued = False
        events, edge.inbox = edge.inbox, []
        failed = bool(edge.state.causes)
        try:
            edge.state, requests = step(edge.state, *events)
            for request in requests:
                if self._stops:
                    self._stops.pop((edge, _subject(request)), None)
                self._carry_out[type(request)](edge, request)
        except Exception as error:  # the store's answer to a lookup, or a bug: either way the failure of this vertex
            if failed:
                raise
            edge.fail(error)

    # --- what each request does

    def _load_cache_map(self, edge: ActiveEdge, _request: messages.LoadCacheMap) -> None:
        edge.vertex.cache_map.join(edge, partial(self._cache_map_loaded, edge))

    def _cache_map_loaded(self, edge: ActiveEdge, outcome: Outcome[CacheMap]) -> None:
        if outcome.value is None:
            edge.fail(outcome.error or InternalError("a cache map is missing"))
            return
        inputs = len(edge.vertex.inputs)
        edge.lookup = Lookup(self._cache, outcome.value, edge.index, inputs, edge.vertex.sources)
        content = [dep.content_key is not None for dep in outcome.value.deps] or [False] * inputs
        edge.post(CacheMapLoaded(content=tuple(content)))

    def _want_input(self, edge: ActiveEdge, request: messages.WantInput) -> None:
        edge.vertex.inputs[request.index].want(edge, request.index, request.level)

    def _compute_content_key(self, edge: ActiveEdge, request: messages.ComputeContentKey) -> None:
        edge.vertex.content_key(request.index).join(edge, partial(self._content_key_computed, edge, request.index))

    def _content_key_computed(self, edge: ActiveEdge, index: int, outcome: Outcome[str]) -> None:
        if outcome.value is None:
            edge.fail(outcome.error or InternalError("a content key is missing"))
        else:
            edge.post(ContentKey(index=index, key=outcome.value))

    def _load_record(self, edge: ActiveEdge, request: messages.LoadRecord) -> None:
        assert edge.lookup is not None
        found = edge.lookup.record(request.record)
        id = found.record.id
        if id not in edge.loading:
            edge.loading[id] = Once(self.nursery, partial(self._load, edge, found))
        edge.loading[id].join(edge, partial(self._record_loaded, edge, found.record))

    async def _load(self, edge: ActiveEdge, found: FoundRecord) -> bool:
        started = self.clock()
        covered = _covered(edge)
        vertex = edge.vertex
        try:
            result = await found.cache.load(found.record)
            if result is None:
                return False
            keys = await self._kept(edge, found, result, covered) if found.is_imported else (found.record.key,)
        except BuildError as error:
            text = f"a cached result cannot be used: {error}"
            vertex.progress.report(WarningEvent(vertex=vertex.vertex.digest, message=text))
            return False
        edge.hold(result, keys)
        edge.link()
        for one in (*covered, edge):
            one.vertex.progress.cached(started)
        return True

    async def _kept(
        self, edge: ActiveEdge, found: FoundRecord, result: Result, covered: Sequence[ActiveEdge]
    ) -> tuple[str, ...]:
        """What came from elsewhere and was a hit is in the store from now on; the keys that it has there.

        So is what it was made from: the next build may change something in between. On failure the result is released.
        """
        try:
            keys = await self._keep(edge, found, result)
            for one in covered:
                below = one.best_record()
                if (
                    below is not None
                    and below.is_imported
                    and (part := await below.cache.load(below.record)) is not None
                ):
                    try:
                        await self._keep(one, below, part)
                    finally:
                        part.release()
        except BaseException:
            result.release()
            raise
        return keys

    async def _keep(self, edge: ActiveEdge, found: FoundRecord, result: Result) -> tuple[str, ...]:
        keys = edge.add_keys(edge.index)
        for key in keys:
            await self._cache.save(key, result, created=found.record.created)
        return keys

    def _record_loaded(self, edge: ActiveEdge, record: CacheRecord, outcome: Outcome[bool]) -> None:
        if outcome.error is not None:
            edge.fail(outcome.error)
        else:
            edge.post(RecordLoaded() if outcome.value else RecordMissing(record=record.id))

    def _execute(self, edge: ActiveEdge, _request: messages.Execute) -> None:
        self._executions.join(edge)

    def _look_up(self, edge: ActiveEdge, request: messages.Lookup) -> None:
        assert edge.lookup is not None
        edge.post(edge.lookup.update(request.inputs, edge.state.inputs))

    def _answer(self, edge: ActiveEdge, _request: messages.Answer) -> None:
        edge.answer()

    def _stop(self, edge: ActiveEdge, request: messages.Stop) -> None:
        """Not before everything else is decided: what an edge needs no more for its search, it often needs in the
        next moment to execute, and what runs must not be killed and begun again for that."""
        self._stops[edge, _subject(request.activity)] = request.activity

    def _stop_now(self) -> None:
        stops, self._stops = self._stops, {}
        for (edge, _), activity in stops.items():
            match activity:
                case messages.LoadCacheMap():
                    edge.vertex.cache_map.leave(edge)
                case messages.WantInput(index=index):
                    edge.vertex.inputs[index].unwant(edge, index)
                case messages.ComputeContentKey(index=index):
                    edge.vertex.content_key(index).leave(edge)
                case messages.LoadRecord(record=record):
                    edge.loading[record].leave(edge)
                case messages.Execute() if edge.execution is not None:
                    edge.execution.once.leave(edge)


def _subject(request: messages.Request) -> object:
    """What a stop is about: there is one want of an input at a time."""
    return ("input", request.index) if isinstance(request, messages.WantInput) else request


def _covered(edge: ActiveEdge) -> list[ActiveEdge]:
    """What this edge, which is cached, was made from, as far as that has a record of its own: it is cached, too.

    A vertex that nobody examined, or whose record is gone, was skipped: nothing is said of it. Inputs come before
    what uses them, as if they had run.
    """
    found = []
    seen = {edge}
    path = [(edge, iter(edge.vertex.inputs))]
    while path:
        covered, inputs = path[-1]
        below = next((one for one in inputs if one not in seen and not one.vertex.progress.settled), None)
        if below is not None:
            seen.add(below)
            path.append((below, iter(below.vertex.inputs)))
            continue
        path.pop()
        if covered is not edge and covered.state.records:
            found.append(covered)
    return found


def _identity(vertex: Vertex, inputs: Sequence[ActiveEdge]) -> str:
    """What makes two vertices one while they are active: the digest, unless something is to ignore the cache.

    A vertex that ignores the cache, or uses one that does, is another than the same one without: it must not be
    given what was made for that.
    """
    below = [edge.vertex.identity for edge in inputs]
    same = all(identity == edge.vertex.vertex.digest for identity, edge in zip(below, inputs, strict=True))
    if same and not vertex.options.ignore_cache:
        return vertex.digest
    return "fresh:" + Digest.sha256(repr((vertex.digest, vertex.options.ignore_cache, below)).encode())
