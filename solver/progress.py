"""What is told about one vertex: to every job that has it, and again to a job that comes later.

A vertex is announced as running while its op executes, or as soon as its op says something at another time. It
is announced as cached only when its own record applied. What is kept for late listeners is bounded: of a long
output only the end. It knows no scheduler and no edge.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import trio

from buildengine.events import Event, EventSink, ExplainEvent, LogEvent, Outcome, StatusEvent, VertexEvent, WarningEvent
from solver.failures import causes
from solver.vertex import Vertex

_KEPT_OUTPUT = 256 << 10  # bytes of output kept for each vertex


def announcement(vertex: Vertex) -> VertexEvent:
    """The vertex as a job shows it before anything has happened."""
    return VertexEvent(
        digest=vertex.digest,
        name=vertex.name,
        inputs=tuple([edge.vertex.digest for edge in vertex.inputs]),
        group=vertex.options.progress_group,
    )


def as_seen_by(event: Event, vertex: Vertex) -> Event:
    """The event as one of a job's own vertex: who shares the work may call it otherwise."""
    if isinstance(event, VertexEvent):
        if event.digest == vertex.digest and event.name == vertex.name:
            return event
        mine = announcement(vertex)
        return replace(mine, started=event.started, completed=event.completed, outcome=event.outcome, error=event.error)
    return event if event.vertex == vertex.digest else replace(event, vertex=vertex.digest)


class _Said:
    """What an op has said so far, for those who come later."""

    __slots__ = ("_output", "_size", "_statuses", "_warnings")

    def __init__(self) -> None:
        self._statuses: dict[str, StatusEvent] = {}
        self._warnings: list[WarningEvent] = []
        self._output: deque[LogEvent] = deque()
        self._size = 0

    def keep(self, event: StatusEvent | LogEvent | WarningEvent) -> None:
        match event:
            case StatusEvent():
                self._statuses[event.id] = event
            case WarningEvent():
                self._warnings.append(event)
            case LogEvent():
                self._output.append(event)
                self._size += len(event.data)
                while self._size > _KEPT_OUTPUT and len(self._output) > 1:
                    self._size -= len(self._output.popleft().data)

    def events(self) -> list[Event]:
        return [*self._statuses.values(), *self._output, *self._warnings]


class Progress:
    """`settled` once the vertex has come to an end that stands: it was executed, failed, or was found cached."""

    __slots__ = (
        "_announcement",
        "_busy",
        "_clock",
        "_listeners",
        "_said",
        "_started",
        "_state",
        "_under_way",
        "settled",
    )

    def __init__(self, vertex: Vertex, clock: Callable[[], float]) -> None:
        self._announcement = announcement(vertex)
        self._clock = clock
        self._listeners: dict[Hashable, EventSink] = {}
        self._busy = 0
        self._started: float | None = None
        self._state: VertexEvent | None = None
        self._said: _Said | None = None
        self._under_way: set[str] = set()  # what is done for the vertex while its op is at rest
        self.settled = False

    # --- telling

    @contextmanager
    def activity(self, *, announce: bool, excuse: Callable[[Exception], bool] = lambda error: False) -> Iterator[None]:
        """The op is at work. Not announced, it is quiet unless it reports something or fails.

        With an `excuse` a failure is told as a cancellation: the work will be done by somebody else.
        """
        self._busy += 1
        outcome, error = Outcome.DONE, ""
        if announce:
            self._begin()
        try:
            yield
        except BaseException as raised:
            outcome = Outcome.CANCELED
            # an op whose process was killed by a cancellation may well raise that its process failed
            cancelled = trio.current_effective_deadline() == -math.inf
            if isinstance(raised, Exception) and not cancelled and not excuse(raised):
                outcome, error = Outcome.FAILED, str(causes(raised)[0])
                self._begin()
            raise
        finally:
            self._busy -= 1
            if not self._busy:
                self._end(outcome, error)
            self.settled = self.settled or outcome is Outcome.FAILED or (announce and outcome is Outcome.DONE)

    def announce(self, started: float) -> None:
        """What goes on quietly is told all the same, as begun at `started`."""
        if self._busy and self._started is None:
            self._begin(started)

    def report(self, event: Event) -> None:
        """What the op says itself. Progress of one at rest is a run of its own: an image is pulled when it is read."""
        if isinstance(event, StatusEvent) and not self._busy:
            self._report_at_rest(event)
            return
        if self._busy and not isinstance(event, WarningEvent):
            self._begin()
        self.publish(event)

    def _report_at_rest(self, event: StatusEvent) -> None:
        self._begin()
        self.publish(event)
        if event.completed is None:
            self._under_way.add(event.id)
        else:
            self._under_way.discard(event.id)
        if not self._under_way:
            self._end(Outcome.DONE, "")

    def cached(self, since: float) -> None:
        """A record stands for this vertex."""
        if not self.settled:
            self.settled = True
            self._publish_vertex(since, Outcome.CACHED)

    def publish(self, event: Event) -> None:
        self._keep(event)
        for sink in tuple(self._listeners.values()):
            sink(event)

    def _begin(self, started: float | None = None) -> None:
        if self._started is None:
            self._started = self._clock() if started is None else started
            self._publish_vertex(self._started, Outcome.RUNNING)

    def _end(self, outcome: Outcome, error: str) -> None:
        if self._started is not None:
            started, self._started = self._started, None
            self._publish_vertex(started, outcome, error)

    def _publish_vertex(self, started: float, outcome: Outcome, error: str = "") -> None:
        completed = None if outcome is Outcome.RUNNING else self._clock()
        self.publish(replace(self._announcement, started=started, completed=completed, outcome=outcome, error=error))

    # --- listening

    def listen(self, listener: Hashable, sink: EventSink) -> None:
        """From now on `sink` hears everything, and at once what was said before."""
        if listener not in self._listeners:
            for event in self._replayed():
                sink(event)
            self._listeners[listener] = sink

    def ignore(self, listener: Hashable) -> None:
        self._listeners.pop(listener, None)

    def _keep(self, event: Event) -> None:
        if isinstance(event, VertexEvent):
            self._state = event
        elif not isinstance(event, ExplainEvent):
            if self._said is None:
                self._said = _Said()
            self._said.keep(event)

    def _replayed(self) -> list[Event]:
        """In an order in which it may have happened: started, progress, completed."""
        said = [] if self._said is None else self._said.events()
        if self._state is None:
            return said
        started = replace(self._state, completed=None, outcome=Outcome.RUNNING, error="")
        return [started, *said] if self._state.completed is None else [started, *said, self._state]
