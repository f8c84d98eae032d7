"""How much of what costs us more than its sender one connection may send: resets, pings, settings, empty frames.

The class of CVE-2023-44487 (resets), CVE-2019-9512 (pings), -9515 (settings) and -9518 (empty frames).
"""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    """`burst` at once, `rate` a second in the long run, and what is earned by useful work."""

    def __init__(self, burst: int, rate: int, clock: Callable[[], float]) -> None:
        self._burst, self._rate, self._clock = burst, rate, clock
        self._left, self._at = float(burst), clock()

    def spend(self) -> bool:
        """False when nothing is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        return self._left >= 0

    def earn(self) -> None:
        self._left = min(self._burst, self._left + 1)
