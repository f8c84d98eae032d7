"""The sending end of fsutil's protocol: a directory is listed, and the files that are asked for follow.

The daemon exports a directory this way, `pybuild --addr` sends a build context. One task sends: a piece of the listing,
then what was asked for meanwhile, in turn; another one reads requests, so that neither side waits for the other.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from itertools import islice

import trio

from buildengine.api.fspackets_pb2 import Attribute, Packet, Stat
from buildengine.api.fsreceive import Packets, Progress, half_close, say
from buildengine.api.fsutil import Entry, ProtocolError, Sending, go_mode
from buildengine.api.fswalk import walk
from buildengine.errors import BuildError, ContextError
from buildengine.inroot import open_in_root
from buildengine.limits import DISK, offload
from cache.selection import Filter
from worker.layers.outcome import one_error

_ENTRIES = 512  # of the listing, at once
_CHUNK = 64 << 10
_READ, _PIECES = 1 << 20, 1024  # bytes and pieces of files, at once
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


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
        self._files = _Files(root)
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


class _Files:
    """The files that were asked for, one after the other, in pieces. `read` blocks; `close` it when it does not run."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._number = 0
        self._fd = -1
        self.requested: deque[tuple[int, bytes]] = deque()

    @property
    def busy(self) -> bool:
        return self._fd >= 0 or bool(self.requested)

    def read(self) -> list[tuple[int, bytes]]:
        """Pieces of about _READ bytes together; an empty one ends a file."""
        pieces: list[tuple[int, bytes]] = []
        size = 0
        while size < _READ and len(pieces) < _PIECES and self._open():
            data = os.read(self._fd, _CHUNK)
            pieces.append((self._number, data))
            size += len(data)
            if not data:
                self.close()
        return pieces

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> bool:
        """A file that cannot be opened is an empty one: fsutil has no other word for it."""
        if self._fd < 0 and self.requested:
            self._number, path = self.requested.popleft()
            try:
                self._fd = open_in_root(self._root, path, _FILE, follow=False)
                if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                    self.close()
            except OSError:
                self._fd = -1
            if self._fd < 0:
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd >= 0


def stat_of(entry: Entry) -> Stat:
    major, minor = entry.device
    return Stat(
        path=entry.path,
        mode=go_mode(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        mtime=entry.mtime_ns,
        link=entry.link,
        major=major,
        minor=minor,
        xattrs=[Attribute(name=os.fsencode(name), value=value) for name, value in entry.xattrs.items()],
    )


def _some(entries: Iterator[Entry]) -> list[Entry]:
    return list(islice(entries, _ENTRIES))
