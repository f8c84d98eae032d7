"""The graph that is being solved: vertices and edges that some job has, with what is known about each.

A vertex is here once, however many jobs have it, and stays until the last of them has left. Everything that was
computed for it (cache map, content keys, results) stays as long. Here is what an edge holds and whom it tells;
what it decides stands in `solver.edge`, and `solver.scheduler` carries that out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import trio

from buildengine.errors import InternalError, SourceError
from solver import cachekey, edge
from solver.failures import Failure, causes
from solver.lookup import FoundRecord, Lookup
from solver.messages import (
    Event,
    Failed,
    InputDone,
    InputKeys,
    Level,
    Unwanted,
    Wanted,
)
from solver.once import Once
from solver.progress import Progress
from solver.turns import Turns
from solver.vertex import CacheMap, CacheRecord, CacheSource, Op, Result, Vertex

if TYPE_CHECKING:
    from solver.execution import Execution
    from solver.job import Job
    from solver.scheduler import Scheduler


_SLOW = 2.0  # seconds that a source may take for its cache map before it is shown


class Consumer(Protocol):
    """Whoever wants an edge: an edge that has it as an input, or a job."""

    def input_answered(self, index: int, producer: ActiveEdge) -> None:
        """`producer` has got further, or has failed: its state says how."""
        ...


class ActiveVertex:
    __slots__ = (
        "_content", "_edges", "_mapped_by", "cache_map", "identity", "inputs", "jobs", "progress", "scheduler",
        "turns", "vertex",
    )  # fmt: skip

    def __init__(self, scheduler: Scheduler, identity: str, vertex: Vertex, inputs: tuple[ActiveEdge, ...]) -> None:
        self.scheduler = scheduler
        self.identity = identity
        self.vertex = vertex
        self.inputs = inputs
        self.jobs: dict[Job, Vertex] = {}
        self.turns = Turns(self.jobs)
        self.progress = Progress(vertex, scheduler.clock)
        self.cache_map: Once[CacheMap] = Once(scheduler.nursery, self._load_cache_map)
        self._mapped_by: Op | None = None  # whose is the cache map
        self._content: dict[int, Once[str]] = {}
        self._edges: dict[int, ActiveEdge] = {}

    @property
    def edges(self) -> tuple[ActiveEdge, ...]:
        return tuple(self._edges.values())

    @property
    def sources(self) -> tuple[CacheSource, ...]:
        """The caches of elsewhere that its jobs have named."""
        return tuple(dict.fromkeys(source for job in self.jobs for source in job.sources))

    @property
    def abandoned(self) -> bool:
        """All jobs that have it are ending."""
        return all(job.closed for job in self.jobs)

    def edge(self, index: int) -> ActiveEdge:
        if index not in self._edges:
            self._edges[index] = ActiveEdge(self, index)
        return self._edges[index]

    def content_key(self, index: int) -> Once[str]:
        """The content key of an input whose result is there."""
        if index not in self._content:
            self._content[index] = Once(self.scheduler.nursery, lambda: self._compute_content_key(index))
        return self._content[index]

    def computations(self) -> Iterator[Once[Any]]:
        """All that may be running for this vertex."""
        yield self.cache_map
        yield from self._content.values()
        for one in self._edges.values():
            yield from one.loading.values()
            if one.execution is not None:
                yield one.execution.once

    async def execute(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        """What its op makes of `inputs`."""

        async def call(op: Op) -> Sequence[Result | None]:
            await self._map_of(op)
            return await op.exec(inputs)

        return await self.turns.call(call)

    async def _map_of(self, op: Op) -> CacheMap:
        """What `op` says of itself: the same as the op that has given the vertex its cache map.

        Raises SourceError when it is not: a tag that has moved meanwhile is no result for the digest of before.
        """
        outcome = self.cache_map.outcome
        assert outcome is not None
        assert outcome.value is not None
        known = outcome.value
        if op is self._mapped_by or not known.stable:
            return known
        found = await op.cache_map()
        if found.digest != known.digest:
            raise SourceError(f"{self.vertex.name} is not any more what it was", hint="it has changed during the build")
        return found

    async def _load_cache_map(self) -> CacheMap:
        async def call(op: Op) -> CacheMap:
            self._mapped_by = op
            return await op.cache_map()

        with self.progress.activity(announce=False), self._announced_when_slow():
            cache_map = await self.turns.call(call)
            if cache_map.deps and len(cache_map.deps) != len(self.inputs):
                raise InternalError(f"{self.vertex.name}: {len(cache_map.deps)} deps for {len(self.inputs)} inputs")
        if cache_map.stable and not self.vertex.options.ignore_cache:
            for source in self.sources:  # nothing is looked up before
                await source.ready()
        return cache_map

    @contextmanager
    def _announced_when_slow(self) -> Iterator[None]:
        """A source may wait for a server without a word: then it is told what the build is waiting for."""
        scope = trio.CancelScope()

        async def announce() -> None:
            with scope:
                await trio.sleep(_SLOW)
                self.progress.announce(self.scheduler.clock() - _SLOW)

        if not self.inputs:
            self.scheduler.nursery.start_soon(announce)
        try:
            yield
        finally:
            scope.cancel()

    async def _compute_content_key(self, index: int) -> str:
        result = self.inputs[index].result
        if result is None:
            return cachekey.EMPTY_CONTENT
        held = result.clone()

        async def call(op: Op) -> str:
            compute = (await self._map_of(op)).deps[index].content_key
            return cachekey.EMPTY_CONTENT if compute is None else cachekey.content_key(await compute(held))

        try:
            with self.progress.activity(announce=False):
                return await self.turns.call(call)
        finally:
            held.release()


class ActiveEdge:
    """One output of an active vertex: the machine's state, the demand for it, and the result once it is there."""

    __slots__ = (
        "_demand", "_wanted", "_wants", "execution", "inbox", "index", "keys", "loading", "lookup", "queued",
        "result", "state", "vertex",
    )  # fmt: skip

    def __init__(self, vertex: ActiveVertex, index: int) -> None:
        self.vertex = vertex
        self.index = index
        self.state = edge.initial(len(vertex.inputs), lookup=not vertex.vertex.options.ignore_cache)
        self.inbox: list[Event] = []
        self.queued = False
        self.lookup: Lookup | None = None
        self.loading: dict[str, Once[bool]] = {}  # by record
        self.execution: Execution | None = None
        self.result: Result | None = None
        self.keys: tuple[str, ...] = ()  # under which the store has the result
        self._wants: dict[tuple[Consumer, int], Level] = {}
        self._demand = [0] * len(Level)  # how many want each level: the highest is found without a walk
        self._wanted = Level.NONE  # what the machine was told last

    # --- demand

    def want(self, consumer: Consumer, index: int, level: Level) -> None:
        """`consumer` wants this edge at `level`, as its input `index`, instead of what it wanted before."""
        self._forget(consumer, index)
        if self.state.level > Level.NONE or self.state.causes:
            consumer.input_answered(index, self)
        if self.state.level < level and not self.state.causes:
            self._wants[consumer, index] = level
            self._demand[level] += 1
        self._tell_demand()

    def unwant(self, consumer: Consumer, index: int) -> None:
        self._forget(consumer, index)
        self._tell_demand()

    def answer(self) -> None:
        """Tell everybody who waits how far this edge is. Who has got what it wanted, waits no more.

        The machine need not hear of that: what it was told to reach, it has reached.
        """
        for (consumer, index), level in [*self._wants.items()]:
            if self.state.level >= level or self.state.causes:
                self._forget(consumer, index)
            consumer.input_answered(index, self)

    def _forget(self, consumer: Consumer, index: int) -> None:
        level = self._wants.pop((consumer, index), None)
        if level is not None:
            self._demand[level] -= 1

    def _tell_demand(self) -> None:
        wanted = next((level for level in _DOWNWARDS if self._demand[level]), Level.NONE)
        if wanted != self._wanted:
            self._wanted = wanted
            self.post(Wanted(level=wanted) if wanted else Unwanted())

    # --- what happens to it

    def post(self, event: Event) -> None:
        self.inbox.append(event)
        self.vertex.scheduler.wake(self)

    def fail(self, error: Exception) -> None:
        """Something that this edge asked for has failed."""
        failures = [Failure(vertex=self.vertex.vertex.digest, error=cause) for cause in causes(error)]
        self.post(Failed(causes=tuple(failures)))

    def input_answered(self, index: int, producer: ActiveEdge) -> None:
        state = producer.state
        if state.causes:
            self.post(Failed(causes=state.causes))
        elif state.level is Level.RESULT:
            self.post(InputDone(index=index, keys=state.keys))
        else:
            self.post(InputKeys(index=index, level=state.level, keys=state.keys))

    def hold(self, result: Result | None, keys: tuple[str, ...]) -> None:
        """This is the result, and the keys under which the store has it. The reference is the edge's own now."""
        self._release()
        self.result, self.keys = result, keys

    def add_keys(self, output: int) -> tuple[str, ...]:
        """The keys of an output over all that is known of the inputs. The store links them."""
        assert self.lookup is not None
        inputs = []
        for index, (producer, one) in enumerate(zip(self.vertex.inputs, self.state.inputs, strict=True)):
            keys = tuple(dict.fromkeys((*producer.keys, *one.keys)))
            inputs.append(self.lookup.input_keys(index, keys, one.content))
        return self.lookup.add_keys(inputs, output)

    def link(self) -> None:
        """After a hit: where content was recognised, let the definition lead there too, the next time."""
        if any(
            one.content is not None and producer.keys
            for producer, one in zip(self.vertex.inputs, self.state.inputs, strict=True)
        ):
            self.add_keys(self.index)

    def look_again(self) -> bool:
        """Is there a record after all?"""
        assert self.lookup is not None
        found = self.lookup.update(range(len(self.state.inputs)), self.state.inputs)
        return any(record not in self.state.missing for record in found.records)

    def best_record(self) -> FoundRecord | None:
        """The first of the records that its search has found, if it is still among them."""
        if self.lookup is None or not self.state.records:
            return None
        return self.lookup.find(self.state.records[0])

    def passed_over(self) -> CacheRecord | None:
        """The store's record of what nobody needed in the end."""
        found = self.best_record()
        return found.record if found is not None and not found.is_imported else None

    def drop(self) -> None:
        """No job has it any more."""
        if self.execution is not None:
            self.execution.drop(self)
        self._release()

    def _release(self) -> None:
        if self.result is not None:
            result, self.result = self.result, None
            result.release()


_DOWNWARDS = (Level.RESULT, Level.CONTENT_KEYS, Level.DEFINITION_KEYS)


def below(roots: Iterable[ActiveEdge]) -> list[ActiveVertex]:
    """All vertices that these edges are made from."""
    seen: dict[ActiveVertex, None] = {}
    waiting = [edge.vertex for edge in roots]
    while waiting:
        vertex = waiting.pop()
        if vertex not in seen:
            seen[vertex] = None
            waiting += [edge.vertex for edge in vertex.inputs]
    return [*seen]
