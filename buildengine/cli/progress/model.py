"""The running build as it is shown: events in, steps out. Pure: no clock, no terminal, no order but the events'.

A `Trace` holds a `Step` for each vertex, or one for all the vertices of a progress group, in the order in
which they first appeared. `apply` returns what an event changed, so that a painter looks at nothing else.
What is announced and never runs, because a cached step made it needless, is neither counted nor shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import field, replace

from buildengine.cli.progress.lines import Line, LineBuffer, safe
from buildengine.events import Event, ExplainEvent, LogEvent, Outcome, StatusEvent, VertexEvent, WarningEvent
from buildengine.values import dataclass


@dataclass(slots=True, kw_only=True, eq=False)
class Step:
    """One line of the display. `number` is given by the painter that shows numbers, when it first does."""

    name: str
    tail: deque[Line]
    number: int = 0
    outcome: Outcome = Outcome.RUNNING
    error: str = ""
    runs: dict[float, float | None] = field(default_factory=dict)  # when it ran: start -> end
    statuses: dict[str, StatusEvent] = field(default_factory=dict)
    members: dict[str, VertexEvent] = field(default_factory=dict)
    hidden: bool = False  # a group of which only weak members ran
    _buffers: dict[int, LineBuffer] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        return bool(self.runs) and not self.hidden

    @property
    def finished(self) -> bool:
        return self.started and None not in self.runs.values()

    @property
    def running(self) -> bool:
        return self.started and not self.finished

    @property
    def last_start(self) -> float:
        return max(self.runs, default=0.0)

    def seconds(self, now: float) -> float:
        """How long it has worked: pauses between its runs do not count, what overlaps counts once."""
        total, until = 0.0, float("-inf")
        for start, end in sorted(self.runs.items()):
            stop = now if end is None else end
            total += max(0.0, stop - max(start, until))
            until = max(until, stop)
        return total

    def last_lines(self, count: int) -> list[str]:
        """The newest `count` lines of output, the unfinished ones included."""
        unfinished = [buffer.pending for buffer in self._buffers.values() if buffer.pending]
        return [*(line.text for line in self.tail), *unfinished][-count:] if count > 0 else []

    def log(self, event: LogEvent) -> list[Line]:
        """Take output in; the lines that are whole now."""
        lines = self._buffers.setdefault(event.stream, LineBuffer()).feed(event.data, event.timestamp)
        self.tail.extend(lines)
        return lines

    def update(self, event: VertexEvent) -> list[Line]:
        """Take news of one member in; the lines that its end makes whole."""
        self.members[event.digest] = event
        members = self.members.values()
        if event.started is not None:
            self.runs[event.started] = event.completed
        if event.group is None:
            self.name = safe(event.name)
        self.error = next((safe(member.error) for member in members if member.error), "")
        self.hidden = not self.error and not any(m.started is not None and not _is_weak(m) for m in members)
        self.outcome = _joint_outcome(member for member in members if member.started is not None)
        lines = [line for buffer in self._buffers.values() for line in buffer.flush()] if self.finished else []
        self.tail.extend(lines)
        return lines


def _is_weak(event: VertexEvent) -> bool:
    return event.group is not None and event.group.weak


def _joint_outcome(members: Iterable[VertexEvent]) -> Outcome:
    """The worst that happened. CACHED only when everything was: what was skipped or cancelled is not."""
    found = {
        Outcome.DONE if member.outcome is Outcome.RUNNING and member.completed is not None else member.outcome
        for member in members
    }
    order = (Outcome.FAILED, Outcome.CANCELED, Outcome.RUNNING, Outcome.DONE, Outcome.CACHED)
    return next((outcome for outcome in order if outcome in found), Outcome.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one event did: to which step, and the lines of output that became whole."""

    step: Step
    event: Event
    lines: tuple[Line, ...] = ()


class Trace:
    """All steps of one build. `keep` lines of output are remembered for each."""

    def __init__(self, *, keep: int = 10) -> None:
        self.steps: dict[str, Step] = {}
        self.warnings: list[WarningEvent] = []
        self.explanations: list[ExplainEvent] = []
        self.started: float | None = None
        self.finished_steps = 0
        self.wanted_steps = 0
        self._keep = keep
        self._by_vertex: dict[str, Step] = {}
        self._vertices: dict[str, VertexEvent] = {}
        self._consumers: dict[str, int] = {}  # vertex -> how many may still want it
        self._needless: set[str] = set()
        self._settled: set[str] = set()  # complete or needless: wants nothing any more
        self._counted: dict[Step, tuple[bool, bool]] = {}

    def apply(self, event: Event) -> Change | None:
        """Take `event` in. None when it changes nothing that is shown."""
        if isinstance(event, VertexEvent):
            return self._apply_vertex(event)
        if isinstance(event, ExplainEvent):
            self.explanations.append(event)
            return None
        if isinstance(event, WarningEvent):
            self.warnings.append(event)
        step = self._by_vertex.get(event.vertex)
        if step is None:
            return None
        if isinstance(event, LogEvent):
            return Change(step=step, event=event, lines=tuple(step.log(event)))
        if isinstance(event, StatusEvent):
            if step.statuses.get(event.id) == event:
                return None
            step.statuses[event.id] = event
        return Change(step=step, event=event)

    def find(self, vertex: str | None) -> Step | None:
        """The step that shows `vertex`."""
        return self._by_vertex.get(vertex or "")

    def cancel(self, now: float) -> list[Change]:
        """The build is over: what has not ended was cancelled."""
        running = [v for v in self._vertices.values() if v.started is not None and v.completed is None]
        ended = (replace(v, completed=max(now, v.started or now), outcome=Outcome.CANCELED) for v in running)
        return [change for change in map(self.apply, ended) if change is not None]

    def _apply_vertex(self, event: VertexEvent) -> Change | None:
        old = self._vertices.get(event.digest)
        if old == event:
            return None
        self._vertices[event.digest] = event
        if event.started is not None:
            self.started = min(event.started, self.started or event.started)
        step = self._step_of(event)
        lines = step.update(event)
        self._follow_demand(old, event)
        self._count(step)
        return Change(step=step, event=event, lines=tuple(lines))

    def _step_of(self, event: VertexEvent) -> Step:
        step = self._by_vertex.get(event.digest)
        if step is None:
            group = event.group
            key, name = (group.id, group.name) if group else (event.digest, event.name)
            step = self.steps.get(key) or Step(name=safe(name), tail=deque(maxlen=self._keep))
            self.steps[key] = self._by_vertex[event.digest] = step
        return step

    def _follow_demand(self, old: VertexEvent | None, event: VertexEvent) -> None:
        """An input is needless once all its consumers are complete, or needless themselves."""
        if old is None:
            for digest in event.inputs:
                self._consumers[digest] = self._consumers.get(digest, 0) + 1
                self._needless.discard(digest)
        complete = [event] if event.completed is not None else []
        while complete:
            vertex = complete.pop()
            if vertex.digest in self._settled:
                continue
            self._settled.add(vertex.digest)
            for digest in vertex.inputs:
                self._consumers[digest] = self._consumers.get(digest, 1) - 1
                known = self._vertices.get(digest)
                if self._consumers[digest] == 0 and known is not None and known.started is None:
                    self._needless.add(digest)
                    complete.append(known)
                    self._count(self._by_vertex[digest])

    def _count(self, step: Step) -> None:
        """Keep the totals right for `step`."""
        weak = all(map(_is_weak, step.members.values()))
        wanted = step.started or not (weak or self._needless.issuperset(step.members))
        before, now = self._counted.get(step, (False, False)), (step.finished, wanted)
        self.finished_steps += now[0] - before[0]
        self.wanted_steps += now[1] - before[1]
        self._counted[step] = now
