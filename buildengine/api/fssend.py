"""The sending end of fsutil's protocol: a directory is listed, and the files that are asked for follow.

The daemon exports a directory this way, `pybuild --addr` sends a build context. One task sends: a piece of the listing,
then what was asked for meanwhile, in turn; another one reads requests, so that neither side waits for the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

import trio

from buildengine.api.fsfiles import Files, open_regular
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsreceive import Packets, Progress, half_close, say
from buildengine.api.fsstat import stat_of
from buildengine.api.fsutil import Entry, ProtocolError, Sending
from buildengine.api.fswalk import walk
from buildengine.errors import BuildError, ContextError
from buildengine.limits import DISK, offload
from cache.selection import Filter
from worker.layers.outcome import one_error

_ENTRIES = 512  # of the listing, at once


async def send(stream: Packets, root: int, keep: Filter | None = None, *, progress: Progress | None = None) -> None:
    """Send what of the open directory `root` is kept, until the receiver has it all. Raises ContextError, RpcError."""
    sender = _Sender(stream, root, keep, progress)
    try:
        with one_error():
            await sender.run()
    except (BuildError, OSError) as error:
        failure = error if isinstance(error, BuildError) else ContextError(f"cannot read a file: {error.strerror}")
        await say(stream, failure.message)
        raise failure from error
    finally:
        sender.close()


class _Sender:
    def __init__(self, stream: Packets, root: int, keep: Filter | None, progress: Progress | None) -> None:
        self._stream = stream
        self._root = root
        self._entries = walk(root, keep)
        self._progress = progress
        self._sending = Sending()
        self._files = Files(partial(open_regular, root))
        self._wake = trio.Event()
        self._bytes = 0

    def close(self) -> None:
        self._files.close()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            await self._read_requests()
            nursery.cancel_scope.cancel()  # the receiver has what it wants
        await self._stream.send(Packet(type=Packet.FIN))
        await half_close(self._stream)
        while await self._stream.receive() is not None:
            pass

    async def _read_requests(self) -> None:
        while (packet := await self._stream.receive()) is not None:
            if packet.type == Packet.REQ:
                self._files.requested.append((packet.id, self._sending.requested(packet.id)))
                self._wake.set()
            elif packet.type == Packet.FIN:
                return
            elif packet.type == Packet.ERR:
                raise ContextError(packet.data.decode(errors="replace") or "the receiver gave up without a reason")
            else:
                raise ProtocolError(f"a packet of type {packet.type} does not belong here")
        raise ProtocolError("the receiver ended before it had everything")

    async def _send_all(self) -> None:
        listing = True
        while True:
            if listing:
                listing = await self._send_entries()
            sent = await self._send_files()
            if not listing and not sent:
                await self._wake.wait()
                self._wake = trio.Event()

    async def _send_entries(self) -> bool:
        """A part of the listing; False when that was the last one."""
        entries = await offload(_some, self._entries, limiter=DISK)
        for entry in entries:
            self._sending.listed(entry)
            await self._stream.send(Packet(type=Packet.STAT, stat=stat_of(entry)))
        if entries:
            return True
        await self._stream.send(Packet(type=Packet.STAT))
        return False

    async def _send_files(self) -> bool:
        """Some of what was asked for; False when there is nothing."""
        if not self._files.busy:
            return False
        for number, data in await offload(self._files.read, limiter=DISK):
            self._bytes += len(data)
            await self._stream.send(Packet(type=Packet.DATA, id=number, data=data))
        if self._progress is not None:
            self._progress(self._bytes)
        return True


def _some(entries: Iterator[Entry]) -> list[Entry]:
    return list(islice(entries, _ENTRIES))
