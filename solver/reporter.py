"""How an op tells what it is doing: lines of output, progress, warnings.

A reporter belongs to one vertex of one job. Nobody hears it until the solver binds it, and what it says then goes
to every job that has this vertex. It knows no job, no display and no wire format.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from buildengine.errors import Location
from buildengine.events import EventSink, LogEvent, StatusEvent, WarningEvent, discard


class Reporter:
    """Handed to an op when it is made; call it from the op's own task, at any time of the call."""

    __slots__ = ("_clock", "_sink", "vertex")

    def __init__(self, vertex: str, *, clock: Callable[[], float] = time.time) -> None:
        self.vertex = vertex
        self._clock = clock
        self._sink: EventSink = discard

    def bind(self, sink: EventSink) -> None:
        """From now on events go to `sink`."""
        self._sink = sink

    def log(self, stream: int, data: bytes) -> None:
        """A piece of output, as it came. `stream` is 1 or 2."""
        self._sink(LogEvent(vertex=self.vertex, stream=stream, data=data, timestamp=self._clock()))

    def status(
        self,
        id: str,
        *,
        name: str = "",
        current: int = 0,
        total: int = 0,
        started: float | None = None,
        completed: float | None = None,
    ) -> None:
        """Progress of one thing inside the step; the newest of an `id` wins."""
        self._sink(
            StatusEvent(
                id=id,
                vertex=self.vertex,
                name=name or id,
                current=current,
                total=total,
                timestamp=self._clock(),
                started=started,
                completed=completed,
            )
        )

    def warn(
        self,
        message: str,
        *,
        level: int = 1,
        detail: tuple[str, ...] = (),
        url: str = "",
        location: Location | None = None,
    ) -> None:
        """Something a user should know although the step goes on."""
        self._sink(
            WarningEvent(vertex=self.vertex, message=message, level=level, detail=detail, url=url, location=location)
        )
