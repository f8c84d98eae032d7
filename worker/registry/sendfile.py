"""A part of a file over a connection, by the megabyte: no byte passes through Python, unless TLS has to encrypt it."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import AbstractContextManager

import trio

from buildengine.errors import StoreError
from buildengine.limits import DISK, offload

_STEP = 1 << 20
_VERIFY = "run `pybuild debug verify-store`"
_TURN = 8 << 20
_PATIENCE = 5  # ms


async def send_file(
    stream: trio.abc.SendStream,
    file: int,
    offset: int,
    length: int,
    *,
    step: Callable[[], AbstractContextManager[object]],
    on_sent: Callable[[int], object],
) -> None:
    """Send `length` bytes of an open file from `offset` on. `step` bounds each wait for the other side."""
    end = offset + length
    while offset < end:
        if isinstance(stream, trio.SocketStream):
            count = await offload(_sendfile, stream.socket.fileno(), file, offset, end - offset, limiter=DISK)
            if not count:
                with step():
                    await trio.lowlevel.wait_writable(stream.socket)
        else:
            data = await offload(os.pread, file, min(_STEP, end - offset), offset, limiter=DISK)
            count = len(data)
            if not count:
                raise StoreError("the file of a blob is shorter than it should be", hint=_VERIFY)
            with step():
                await stream.send_all(data)
        offset += count
        on_sent(count)


def _sendfile(socket: int, file: int, offset: int, count: int) -> int:
    """As much as the socket takes with little waiting, and not more than a step.

    Whoever reads as fast as we write is never worth a hop to the event loop and back, which costs more than 100 KiB.
    """
    count, sent = min(count, _TURN), 0
    room = select.poll()
    room.register(socket, select.POLLOUT)
    while sent < count:
        try:
            done = os.sendfile(socket, file, offset + sent, count - sent)
        except BlockingIOError:
            if room.poll(_PATIENCE):
                continue
            break
        if not done:
            raise StoreError("the file of a blob is shorter than it should be", hint=_VERIFY)
        sent += done
    return sent
