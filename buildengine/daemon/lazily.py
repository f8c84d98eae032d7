"""A value that is made when it is first asked for, by whoever asks first; the others wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

_T = TypeVar("_T")


class Lazily(Generic[_T]):
    """`await lazily()` gives what `make` returned. A failure is not kept: the next one tries again."""

    def __init__(self, make: Callable[[], Awaitable[_T]]) -> None:
        self._make = make
        self._lock = trio.Lock()
        self._made: list[_T] = []

    @property
    def made(self) -> _T | None:
        """What there is by now."""
        return self._made[0] if self._made else None

    async def __call__(self) -> _T:
        async with self._lock:
            if not self._made:
                self._made.append(await self._make())
        return self._made[0]
