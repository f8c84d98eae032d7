"""The body of a request into the store, by the megabyte, hashed on the way.

Each byte is touched once, in a thread. Two buffers: one is hashed and written while the other fills.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from buildengine.errors import BuildError
from buildengine.limits import HASH, offload

STEP = 1 << 20


class Source(Protocol):
    """The body of a request. `fill` gives less than the buffer holds at the end, and never raises."""

    length: int | None

    async def fill(self, buffer: memoryview) -> int: ...


async def receive(source: Source, write: Callable[[memoryview], object]) -> None:
    """Give all bytes of `source` to `write`, in a thread, in order. What came before a failure is written too."""
    size = STEP if source.length is None else max(1, min(STEP, source.length))
    filling, writing = memoryview(bytearray(size)), memoryview(b"")
    count = await source.fill(filling)
    while count:
        ready = filling[:count]
        is_last = count < size
        if is_last:
            await offload(write, ready, limiter=HASH)
            return
        filling = writing if len(writing) == size else memoryview(bytearray(size))
        writing = ready
        failures: list[BuildError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, write, writing, failures)
            count = await source.fill(filling)
        if failures:
            raise failures[0]


async def _write(write: Callable[[memoryview], object], data: memoryview, failures: list[BuildError]) -> None:
    try:
        await offload(write, data, limiter=HASH)
    except BuildError as error:  # out of a nursery it would come in a group
        failures.append(error)
