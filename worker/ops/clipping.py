"""How much of a step's output is told: as much as BuildKit tells, since a step may print gigabytes.

Each stream has its own allowance: 200 KiB for each second that has begun, and 2 MiB in all. What is beyond it is left
out, and one line says so. Of a step that fails the end is told whatever came before.

Facts: BuildKit util/progress/logs/logs.go (streamWriter). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from time import monotonic

from buildengine.units import show_binary_size
from buildengine.values import dataclass

SIZE, SPEED = "BUILDKIT_STEP_LOG_MAX_SIZE", "BUILDKIT_STEP_LOG_MAX_SPEED"
_TAIL = 256 << 10  # bytes that are kept of what was left out


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLimits:
    """Of one stream of a step: `size` in bytes, `speed` in bytes a second; -1 is no limit."""

    size: int = 2 << 20
    speed: int = 200 << 10

    @staticmethod
    def of(environment: Mapping[str, str]) -> OutputLimits:
        """What is no number is as if it was not there."""
        usual = OutputLimits()
        return OutputLimits(
            size=_number(environment.get(SIZE, ""), usual.size),
            speed=_number(environment.get(SPEED, ""), usual.speed),
        )

    def after(self, seconds: float) -> tuple[int, str]:
        """How much may have been told by then, -1 for any amount, and in words the limit that says so."""
        allowed = max(ceil(seconds), 1) * self.speed
        if self.speed != -1 and allowed <= self.size:
            return allowed, f"{show_binary_size(self.speed)}/s"
        return self.size, show_binary_size(self.size)


class Clipping:
    """One stream, from the moment when its step begins."""

    def __init__(self, limits: OutputLimits, *, clock: Callable[[], float] = monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._began = clock()
        self._size = 0
        self._is_clipping = False
        self._tail: bytearray | None = None

    def told(self, data: bytes) -> bytes:
        """What is to be told of a piece of output."""
        allowed, limit = self._limits.after(self._clock() - self._began)
        room = len(data) if allowed == -1 else min(max(allowed - self._size, 0), len(data))
        self._size += len(data)
        if room < len(data) and self._tail is None:
            self._tail = bytearray()
        if self._tail is not None:
            self._tail += data
            del self._tail[:-_TAIL]
        was_clipping, self._is_clipping = self._is_clipping, room < len(data)
        if self._is_clipping and not was_clipping:
            return data[:room] + f"\n[output clipped, log limit {limit} reached]\n".encode()
        return data[:room]

    def end(self) -> bytes:
        """The end of what was printed, when something was left out."""
        return bytes(self._tail or b"")


def _number(text: str, usual: int) -> int:
    try:
        number = int(text)
    except ValueError:
        return usual
    return number if -(1 << 31) <= number < 1 << 31 else usual
