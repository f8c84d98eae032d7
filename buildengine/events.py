"""What a running build tells: the four kinds of BuildKit's status stream, as frozen values.

Times are seconds since the epoch (float). The same vertex may be announced again and again: the newest wins.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from buildengine.errors import Location
from buildengine.values import dataclass


class Outcome(Enum):
    """How a vertex ended. Only CACHED is shown as CACHED: what was skipped or cancelled never ran."""

    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressGroup:
    id: str
    name: str = ""
    weak: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexEvent:
    """A step: announced without times, then started, then completed."""

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    started: float | None = None
    completed: float | None = None
    outcome: Outcome = Outcome.RUNNING
    error: str = ""
    group: ProgressGroup | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvent:
    """Progress inside a step: a layer's download, `transferring context`, `exporting layers`.

    `id` is what people read, as BuildKit's clients show it; `name` is the kind of thing, in a word.
    """

    id: str
    vertex: str
    name: str = ""
    current: int = 0
    total: int = 0
    timestamp: float = 0.0
    started: float | None = None
    completed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """A piece of a step's output, as it came: not split at lines. `stream` is 1 or 2."""

    vertex: str
    stream: int
    data: bytes
    timestamp: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningEvent:
    """Something a user should know although the build goes on. `level` 1 is a lint finding."""

    vertex: str
    message: str
    level: int = 1
    detail: tuple[str, ...] = ()
    url: str = ""
    location: Location | None = None


Event = VertexEvent | StatusEvent | LogEvent | WarningEvent
EventSink = Callable[[Event], None]


def discard(_event: Event) -> None:
    """The sink of whoever does not listen."""
