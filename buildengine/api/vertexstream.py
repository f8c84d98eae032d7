"""The vertices of one build's status stream, completed as BuildKit's clients expect them. Pure.

When a vertex starts, inputs that never ended are shown as cached: nobody had to look at them. At the end of the
stream, what has started and not ended ends. Source: BuildKit solver/progress.go (vertexStream).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from buildengine.events import Event, Outcome, VertexEvent, WarningEvent
from buildengine.history import Steps


class VertexStream:
    def __init__(self) -> None:
        self._newest: dict[str, VertexEvent] = {}
        self._told: dict[str, VertexEvent] = {}  # the last of each, or that with which it has completed
        self._cached: set[str] = set()
        self._below_cached: set[str] = set()
        self._warnings = 0

    @property
    def steps(self) -> Steps:
        return Steps(
            total=len(self._told),
            completed=sum(event.completed is not None for event in self._told.values()),
            cached=len(self._cached),
            warnings=self._warnings,
        )

    @property
    def vertices(self) -> Collection[VertexEvent]:
        """All of them, as they ended, or as they stand."""
        return self._told.values()

    def told(self, event: Event) -> Iterator[Event]:
        """The event, behind those that it implies."""
        if isinstance(event, VertexEvent):
            yield from self._vertex(event)
        else:
            self._warnings += isinstance(event, WarningEvent)
            yield event

    def ended(self, now: float) -> Iterator[VertexEvent]:
        """What is still open, completed."""
        for event in [*self._newest.values()]:
            if event.started is not None and event.completed is None:
                cached = event.digest in self._below_cached
                outcome = Outcome.CANCELED if not cached and not event.error else event.outcome
                yield self._counted(replace(event, completed=now, outcome=outcome))

    def _vertex(self, event: VertexEvent) -> Iterator[VertexEvent]:
        """A chain of inputs may be as long as a build: a stack of our own, not Python's."""
        self._newest[event.digest] = event
        if event.started is not None:
            yield from self._skipped(event)
        if event.outcome is Outcome.CACHED:
            self._mark_below(event.digest)
        yield self._counted(event)

    def _skipped(self, event: VertexEvent) -> Iterator[VertexEvent]:
        found, waiting = [], [event]
        while waiting:
            for digest in waiting.pop().inputs:
                known = self._newest.get(digest)
                if known is None or known.completed is not None or known.outcome is Outcome.CACHED:
                    continue
                del self._newest[digest]
                moment = event.started
                found.append(replace(known, started=moment, completed=moment, outcome=Outcome.CACHED))
                waiting.append(known)
        for each in reversed(found):  # inputs first
            self._below_cached.add(each.digest)
            yield self._counted(each)

    def _mark_below(self, digest: str) -> None:
        waiting = [digest]
        while waiting:
            one = waiting.pop()
            known = self._newest.get(one)
            if known is not None and one not in self._below_cached:
                waiting.extend(known.inputs)
            self._below_cached.add(one)

    def _counted(self, event: VertexEvent) -> VertexEvent:
        known = self._told.get(event.digest)
        if known is None or known.completed is None or event.completed is not None:
            self._told[event.digest] = event
        if event.outcome is Outcome.CACHED:
            self._cached.add(event.digest)
        return event
