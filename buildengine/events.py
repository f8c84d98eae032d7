"""What a running build tells: the four kinds of BuildKit's status stream, and explanations, as frozen values.

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


class Cause(Enum):
    """Why a step ran, or why it did not have to: the leading one."""

    SAME = "same"  # it was in the cache, and all that decides it is as it was
    IMPORTED = "imported"  # the same, in a cache of elsewhere
    FILES = "files"
    IGNORE_FILE = "ignore file"
    COMMAND = "command"
    ARGUMENT = "argument"
    ENVIRONMENT = "environment"
    OPTION = "option"  # a mount, the network, the user, the working directory, an owner, ...
    PLATFORM = "platform"
    BASE = "base"
    SOURCE = "source"  # what a URL or a repository holds
    STEP = "step"  # one before it
    ASKED = "asked"  # the cache was to be ignored
    GONE = "gone"
    FAILED = "failed"
    NEW = "new"  # a step that this build did not have
    FIRST = "first"  # a build that this store has not seen
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainEvent:
    """Why a step ran or was found; told at the end of a build that was asked to explain itself.

    `fate` is ran, cached or failed. `text` says the cause in one line; `details` are further lines. `since` is when
    that was made with which this was compared.
    """

    vertex: str
    name: str
    fate: str
    cause: Cause
    text: str
    details: tuple[str, ...] = ()
    since: float | None = None


Event = VertexEvent | StatusEvent | LogEvent | WarningEvent | ExplainEvent
EventSink = Callable[[Event], None]


def discard(_event: Event) -> None:
    """The sink of whoever does not listen."""
