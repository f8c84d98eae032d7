"""What the edge machine (`solver.edge`) is told and what it asks for, as frozen values.

The machine is the only one that knows what they mean together; the driver knows how to carry each request out.
"""

from __future__ import annotations

from enum import IntEnum

from buildengine.values import dataclass


class Level(IntEnum):
    NONE = 0
    DEFINITION_KEYS = 1
    CONTENT_KEYS = 2
    RESULT = 3


# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The highest level that anybody wants now. It may be lower than before."""

    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted:
    """Nobody wants anything now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMapLoaded:
    """For each input: does the op take a content key of it?"""

    content: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputKeys:
    """An input stands at `level` and has these keys (all, not only new ones)."""

    index: int
    level: Level
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDone:
    """The result of an input is there. No keys: it is fresh, nothing may be found by its definition."""

    index: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentKey:
    index: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer to `Lookup`: which of those inputs matched; all keys and records of the edge, newest first."""

    matched: frozenset[int] = frozenset()
    keys: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLoaded:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordMissing:
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """The op has run; its result is known to the store under `keys`."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAgain:
    """Instead of `Executed`: another process has just stored what was about to be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An input or a request failed. What a cause is, the machine does not ask."""

    causes: tuple[object, ...]


Event = (
    Wanted | Unwanted | CacheMapLoaded | InputKeys | InputDone | ContentKey | Found
    | RecordLoaded | RecordMissing | Executed | LookAgain | Failed
)  # fmt: skip


# --- requests ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCacheMap:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class WantInput:
    """Raise input `index` to `level`. It replaces an earlier want of that input and ends when it is answered."""

    index: int
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeContentKey:
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    pass


Activity = LoadCacheMap | WantInput | ComputeContentKey | LoadRecord | Execute
"""Requests that go on until their event comes, or until they are stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Ask the store about the keys of these inputs. `Found` is the next event."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Tell whoever wants this edge: it stands at `level` and has these keys, or it has failed."""

    level: Level
    keys: tuple[str, ...] = ()
    causes: tuple[object, ...] = ()


Request = Activity | Stop | Lookup | Answer
