"""Two threads, one producing chunks and one using them up; neither ever waits inside its thread for the other."""

from __future__ import annotations

from collections.abc import Callable

import trio

from buildengine.limits import DISK, HASH, offload
from worker.layers.outcome import one_error

_AHEAD = 8  # chunks of 1 MiB


async def pump(read: Callable[[], bytes], feed: Callable[[bytes], None]) -> None:
    """`feed` every chunk that `read` returns, until it returns none. Raises what either raises."""
    send, receive = trio.open_memory_channel[bytes](_AHEAD)
    with one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_produce, read, send)
            with receive:
                async for chunk in receive:
                    await offload(feed, chunk, limiter=DISK)


async def _produce(read: Callable[[], bytes], send: trio.MemorySendChannel[bytes]) -> None:
    with send:
        while chunk := await offload(read, limiter=HASH):
            await send.send(chunk)
