"""What the receiver of a listing makes of its packets: work for the disk, and files to ask for. No I/O of its own.

Packets go in with `take`; what has to be done comes out as `asks` (numbers, to be sent as requests) and `work` (calls
that block, to be made in this order, by one thread at a time).
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from buildengine.api.fspackets_pb2 import Packet, Stat
from buildengine.api.fsstat import entry_of
from buildengine.api.fsutil import Entry, ProtocolError, Receiving, Selected, Step
from buildengine.api.fswalk import walk
from buildengine.api.fswrite import Writer
from buildengine.errors import ContextError
from buildengine.values import dataclass

_BATCH_BYTES = 2 << 20  # handed to the disk at once
_BATCH_WORK = 2048
_OPEN_FILES = 64  # that have begun and not ended: a sender mixes four
_SHOWN = 64 << 10  # bytes of the other side's error message

Work = list[Callable[[], None]]
Digests = Mapping[bytes, bytes]
Paths = frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What came. `short` are files of which fewer bytes came than were listed: the sender cannot read them, or they
    were changed meanwhile. `digests` are BLAKE3, by path; `affected` as `Receiving.affected` says."""

    entries: int
    files: int
    short: tuple[str, ...]
    digests: Digests
    affected: Paths | None


class Intake:
    """One listing on its way to `writer`. `selected`: what is wanted of it; None: everything.

    `bytes` are those of all packets so far, the listing's too (fsutil receive.go: ProgressCb).
    """

    def __init__(self, receiving: Receiving, writer: Writer, selected: Selected | None = None) -> None:
        self._receiving = receiving
        self._writer = writer
        self._selected = selected
        self._work: Work = []
        self._links: Work = []
        self._pieces: dict[int, list[bytes]] = {}
        self._buffered = 0  # bytes in _pieces and _work
        self._lengths: dict[int, int] = {}
        self._short: list[str] = []
        self._files = 0
        self._listed = False
        self.asks: deque[int] = deque()
        self.bytes = 0

    @property
    def is_whole(self) -> bool:
        """Everything has come; what is left is the last of the work, and `finish`."""
        return self._listed and not self._receiving.waiting

    @property
    def is_full(self) -> bool:
        """There is enough work to be worth a thread."""
        return self._buffered >= _BATCH_BYTES or len(self._work) >= _BATCH_WORK

    def work(self) -> Work:
        """What there is to do by now."""
        work, self._work = self._work, []
        self._buffered = sum(len(piece) for pieces in self._pieces.values() for piece in pieces)
        return work

    def last_work(self) -> Work:
        """When everything has come. Links wait for that: what they lead to has to be whole."""
        work = self.work() + self._links
        if self._selected is not None:
            entry = Entry(Selected.METADATA, stat.S_IFREG | 0o644, os.geteuid(), os.getegid(), mtime_ns=time.time_ns())
            self._receiving.touch(b"")
            work.append(partial(self._writer.write, -1, entry, [self._selected.metadata()], last=True))
        return [*work, self._finish]

    def received(self) -> Received:
        return Received(
            entries=self._receiving.count,
            files=self._files,
            short=tuple(self._short),
            digests=self._writer.digests,
            affected=self._receiving.affected(),
        )

    def take(self, packet: Packet) -> None:
        """Raises ContextError."""
        self.bytes += packet.ByteSize()
        kind = packet.type
        if kind == Packet.DATA:
            self._data(packet.id, packet.data)
        elif kind == Packet.STAT:
            if packet.HasField("stat"):
                self._stat(packet.stat)
            else:
                self._end_of_listing()
        elif kind == Packet.ERR:
            raise told(packet)
        else:
            raise ProtocolError(f"a packet of type {kind} does not belong here")

    def _finish(self) -> None:
        self._writer.finish(self._receiving.touched)

    def _stat(self, listed: Stat) -> None:
        if self._listed:
            raise ProtocolError("an entry comes after the end of the listing")
        entry = entry_of(listed)
        number = self._receiving.listed(entry)
        if self._selected is None:
            return self._entry(entry, number)
        for one, its in self._selected.passed(entry, number, listed.SerializeToString()):
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
            self.asks.append(number)

    def _end_of_listing(self) -> None:
        self._listed = True
        self._work += [partial(self._writer.remove, path) for path in self._receiving.gone()]

    def _data(self, number: int, data: bytes) -> None:
        entry = self._receiving.wanted(number)
        pieces = self._pieces.setdefault(number, [])
        if len(self._pieces) > _OPEN_FILES:
            raise ProtocolError(f"the contents of more than {_OPEN_FILES} files come at once")
        if data:
            pieces.append(data)
            self._buffered += len(data)
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


def do(work: Work) -> None:
    """Blocks. Raises OSError, ProtocolError."""
    for step in work:
        step()


def present(root: int) -> dict[bytes, Entry]:
    """What is in the open directory `root`, for `Receiving`. Blocks."""
    return {entry.path: entry for entry in walk(root, attributes=False)}


def told(packet: Packet) -> ContextError:
    """The other side's ERR."""
    return ContextError(packet.data[:_SHOWN].decode(errors="replace") or "the other side gave up without a reason")
