"""Bytes between a connection and a file, by the megabyte: into the store while they are hashed, out of it by sendfile.

No byte of a blob passes through Python on its way out, and on its way in each is touched once, in a thread. Two
buffers: one is hashed and written while the other fills.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import trio

from buildengine.errors import BuildError, StoreError
from buildengine.limits import DISK, HASH, offload
from worker.registry.server.answers import FilePart

STEP = 1 << 20
_VERIFY = "run `pybuild debug verify-store`"
_SENDFILE_STEP = 8 << 20
_SENDFILE_PATIENCE = 5  # ms


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


async def send_file(
    stream: trio.abc.SendStream,
    file: int,
    part: FilePart,
    *,
    step: Callable[[], AbstractContextManager[None]],
    on_sent: Callable[[int], object],
) -> None:
    """Send a part of an open file. `step` bounds each wait for the other side."""
    offset, end = part.offset, part.offset + part.length
    while offset < end:
        if isinstance(stream, trio.SocketStream):
            count = await offload(_sendfile, stream.socket.fileno(), file, offset, end - offset, limiter=DISK)
            if not count:
                with step():
                    await trio.lowlevel.wait_writable(stream.socket)
        else:
            data = await offload(os.pread, file, min(STEP, end - offset), offset, limiter=DISK)
            count = len(data)
            if not count:
                raise StoreError("the file of a blob is shorter than its row says", hint=_VERIFY)
            with step():
                await stream.send_all(data)
        offset += count
        on_sent(count)


def _sendfile(socket: int, file: int, offset: int, count: int) -> int:
    """As much as the socket takes with little waiting, and not more than a step.

    Whoever reads as fast as we write is never worth a hop to the event loop and back, which costs more than 100 KiB.
    """
    count, sent = min(count, _SENDFILE_STEP), 0
    room = select.poll()
    room.register(socket, select.POLLOUT)
    while sent < count:
        try:
            done = os.sendfile(socket, file, offset + sent, count - sent)
        except BlockingIOError:
            if room.poll(_SENDFILE_PATIENCE):
                continue
            break
        if not done:
            raise StoreError("the file of a blob is shorter than its row says", hint=_VERIFY)
        sent += done
    return sent
