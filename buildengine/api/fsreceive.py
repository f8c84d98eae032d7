"""The receiving end of fsutil's protocol: a directory becomes what the other side lists.

The daemon takes a build context this way, `pybuild --addr` a directory that was exported. What is there already with
the same stat is not asked for; what was not listed goes, unless the listing is merged into what is there. Decisions
are `buildengine.api.fsutil`'s, the disk is `fswrite`'s; here packets are taken, and the disk's work is done in
batches by a thread.

Requests are sent by a task of their own: a sender that waits for us to take data does not read them.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import trio

from buildengine.api.fspackets_pb2 import Packet, Stat
from buildengine.api.fsutil import NO_XATTRS, Entry, ProtocolError, Receiving, Selected, Step, check_ids, st_mode
from buildengine.api.fswalk import attributes_of, walk
from buildengine.api.fswrite import Writer
from buildengine.errors import BuildError, ContextError
from buildengine.limits import DISK, offload
from buildengine.values import dataclass
from worker.layers.outcome import one_error

_BATCH_BYTES = 2 << 20  # handed to the disk at once
_BATCH_WORK = 2048
_SHOWN = 64 << 10  # bytes of the other side's error message
_SAYING_WHY = 1.0  # seconds to tell the other side of our failure

Progress = Callable[[int], None]


class Packets(Protocol):
    """A call, at either end (`rpc.ClientCall`, `rpc.ServerCall`)."""

    async def send(self, message: Packet, /) -> None: ...

    async def receive(self) -> Packet | None: ...

    async def receive_many(self) -> list[Packet]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What came. `short` are files of which fewer bytes came than were listed: the sender cannot read them, or they
    were changed meanwhile."""

    entries: int
    files: int
    bytes: int
    short: tuple[str, ...]


async def receive(
    stream: Packets,
    root: int,
    *,
    trust: bool = True,
    merge: bool = False,
    owners: bool = True,
    wanted: Callable[[str], bool] | None = None,
    progress: Progress | None = None,
) -> Received:
    """Make the open directory `root` what the sender lists. Raises ContextError, RpcError.

    `trust`: what is there with the same stat has the same contents. `merge`: nothing is removed and all is asked for.
    `owners`: as listed; otherwise all belongs to whoever runs this. `wanted`: of the paths for which it says no only
    the stats are taken, into one file (`Selected`). `progress` gets the bytes so far.
    """
    receiver = _Receiver(stream, root, owners=owners, progress=progress or _nobody)
    receiver.selected = None if wanted is None else Selected(wanted)
    try:
        with one_error():
            return await receiver.run(trust=trust, merge=merge)
    except (BuildError, OSError) as error:
        failure = error if isinstance(error, BuildError) else _disk_error(error)
        await say(stream, failure.message)
        raise failure from error
    finally:
        with trio.CancelScope(shield=True):
            await offload(receiver.close, limiter=DISK)


class _Receiver:
    def __init__(self, stream: Packets, root: int, *, owners: bool, progress: Progress) -> None:
        self._stream = stream
        self._root = root
        self._writer = Writer(root, owners=owners)
        self._progress = progress
        self._outgoing: deque[int] = deque()  # numbers of files to ask for
        self._wake = trio.Event()
        self._work: list[Callable[[], None]] = []
        self._links: list[Callable[[], None]] = []
        self._pieces: dict[int, list[bytes]] = {}
        self._buffered = 0  # bytes in _pieces and _work
        self._lengths: dict[int, int] = {}
        self._short: list[str] = []
        self._files = self._bytes = 0
        self._listed = False
        self._receiving = Receiving({})
        self.selected: Selected | None = None

    def close(self) -> None:
        self._writer.close()

    async def run(self, *, trust: bool, merge: bool) -> Received:
        present = {} if merge else await offload(_present, self._root, limiter=DISK)
        self._receiving = Receiving(present, trust=trust, attributes=partial(attributes_of, self._root))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask)
            while not (self._listed and not self._receiving.waiting):
                for packet in await self._next():
                    self._take(packet)
                if self._buffered >= _BATCH_BYTES or len(self._work) >= _BATCH_WORK:
                    await self._flush()
            nursery.cancel_scope.cancel()  # nothing is left to be asked for
        self._work += self._links
        if self.selected is not None:
            entry = Entry(Selected.METADATA, stat.S_IFREG | 0o644, os.geteuid(), os.getegid(), mtime_ns=time.time_ns())
            self._work.append(partial(self._writer.write, -1, entry, [self.selected.metadata()], last=True))
        await self._flush()
        await offload(self._writer.finish, self._receiving.touched, limiter=DISK)
        await self._stream.send(Packet(type=Packet.FIN))
        await self._drain()
        entries = self._receiving.count
        return Received(entries=entries, files=self._files, bytes=self._bytes, short=tuple(self._short))

    async def _ask(self) -> None:
        while True:
            while self._outgoing:
                await self._stream.send(Packet(type=Packet.REQ, id=self._outgoing.popleft()))
            self._wake = trio.Event()
            await self._wake.wait()

    async def _next(self) -> list[Packet]:
        packets = await self._stream.receive_many()
        if not packets:
            raise ProtocolError("the other side ended before it had sent everything")
        return packets

    async def _drain(self) -> None:
        """Until the sender has ended too."""
        while (packet := await self._stream.receive()) is not None:
            if packet.type == Packet.ERR:
                raise _told(packet)
            if packet.type == Packet.FIN:
                await half_close(self._stream)

    # --- packets ------------------------------------------------------------------------------------------

    def _take(self, packet: Packet) -> None:
        kind = packet.type
        if kind == Packet.DATA:
            self._data(packet.id, packet.data)
        elif kind == Packet.STAT:
            if packet.HasField("stat"):
                self._stat(packet.stat)
            else:
                self._end_of_listing()
        elif kind == Packet.ERR:
            raise _told(packet)
        else:
            raise ProtocolError(f"a packet of type {kind} does not belong here")

    def _stat(self, listed: Stat) -> None:
        if self._listed:
            raise ProtocolError("an entry comes after the end of the listing")
        entry = entry_of(listed)
        number = self._receiving.listed(entry)
        if self.selected is None:
            return self._entry(entry, number)
        for one, its in self.selected.passed(entry, number, listed.SerializeToString()):
            self._entry(one, its)
        return None

    def _entry(self, entry: Entry, number: int) -> None:
        step = self._receiving.step(entry, number)
        if step is Step.MAKE:
            self._work.append(partial(self._writer.make, entry))
        elif step is Step.LINK:
            self._links.append(partial(self._writer.make, entry))
        elif step is Step.FETCH:
            self._files += 1
            self._outgoing.append(number)
            self._wake.set()

    def _end_of_listing(self) -> None:
        self._listed = True
        self._work += [partial(self._writer.remove, path) for path in self._receiving.gone()]

    def _data(self, number: int, data: bytes) -> None:
        entry = self._receiving.wanted(number)
        pieces = self._pieces.setdefault(number, [])
        if data:
            pieces.append(data)
            self._buffered += len(data)
            self._bytes += len(data)
            self._lengths[number] = self._lengths.get(number, 0) + len(data)
            if self._buffered >= _BATCH_BYTES:
                self._write_all()
            return
        self._receiving.whole(number)
        self._work.append(partial(self._writer.write, number, entry, self._pieces.pop(number), last=True))
        if self._lengths.pop(number, 0) < entry.size:
            self._short.append(entry.path.decode(errors="backslashreplace"))

    def _write_all(self) -> None:
        """What has come of files that are not whole."""
        for number, pieces in self._pieces.items():
            if pieces:
                entry = self._receiving.wanted(number)
                self._work.append(partial(self._writer.write, number, entry, pieces, last=False))
                self._pieces[number] = []

    async def _flush(self) -> None:
        work, self._work, self._buffered = self._work, [], sum(len(p) for ps in self._pieces.values() for p in ps)
        self._progress(self._bytes)
        if work:
            await offload(_do, work, limiter=DISK)


def entry_of(listed: Stat) -> Entry:
    """Raises ProtocolError for what no file of Linux can be."""
    mode = st_mode(listed.mode)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        device = (0, 0)
    else:
        device = (listed.major, listed.minor)
    attributes = {os.fsdecode(one.name): one.value for one in listed.xattrs} or NO_XATTRS
    entry = Entry(listed.path, mode, listed.uid, listed.gid, listed.size, listed.mtime, listed.link, device, attributes)
    check_ids(entry)
    return entry


async def half_close(stream: Packets) -> None:
    """A caller says that nothing of his will follow; at the serving end there is nothing to be said."""
    close = getattr(stream, "half_close", None)
    if close is not None:
        await close()


def _do(work: list[Callable[[], None]]) -> None:
    for step in work:
        step()


def _present(root: int) -> dict[bytes, Entry]:
    return {entry.path: entry for entry in walk(root, attributes=False)}


def _nobody(_bytes: int) -> None:
    pass


def _told(packet: Packet) -> ContextError:
    return ContextError(packet.data[:_SHOWN].decode(errors="replace") or "the other side gave up without a reason")


def _disk_error(error: OSError) -> ContextError:
    return ContextError(f"cannot write {error.filename or 'what was received'}: {error.strerror}")


async def say(stream: Packets, why: str) -> None:
    """Tell the other side, if it still listens."""
    with trio.move_on_after(_SAYING_WHY):
        try:
            await stream.send(Packet(type=Packet.ERR, data=why.encode()))
        except Exception:  # whatever is wrong with the call, our own failure is what matters
            return
