"""What the receiver of a listing makes of its packets: work for the disk, and files to ask for. No I/O of its own.

Packets go in with `take`; what has to be done comes out as `asks` (numbers, to be sent as requests) and `work` (calls
that block, to be made in this order, by one thread at a time).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsstat import entry_of
from buildengine.api.fsutil import Entry, ProtocolError, Receiving, Step
from buildengine.api.fswrite import Writer
from buildengine.errors import ContextError

BATCH_BYTES = 2 << 20  # handed to the disk at once
_BATCH_WORK = 2048
_SHOWN = 64 << 10  # bytes of the other side's error message

Work = list[Callable[[], None]]


class Intake:
    """One listing on its way to `writer`."""

    def __init__(self, receiving: Receiving, writer: Writer) -> None:
        self._receiving = receiving
        self._writer = writer
        self._work: Work = []
        self._links: Work = []
        self._pieces: dict[int, list[bytes]] = {}
        self._buffered = 0  # bytes in _pieces and _work
        self._listed = False
        self.asks: deque[int] = deque()
        self.bytes = 0

    @property
    def is_whole(self) -> bool:
        return self._listed and not self._receiving.waiting

    @property
    def is_full(self) -> bool:
        """There is enough work to be worth a thread."""
        return self._buffered >= BATCH_BYTES or len(self._work) >= _BATCH_WORK

    def work(self) -> Work:
        """All of it, the links last, when everything has come."""
        work, self._work = self._work, []
        self._buffered = sum(len(piece) for pieces in self._pieces.values() for piece in pieces)
        if self.is_whole:
            work += self._links
            self._links = []
        return work

    def finish(self) -> None:
        """After all the work. Blocks."""
        self._writer.finish(self._receiving.touched)

    def take(self, packet: Packet) -> None:
        """Raises ContextError."""
        kind = packet.type
        if kind == Packet.DATA:
            self._data(packet.id, packet.data)
        elif kind == Packet.STAT:
            if packet.HasField("stat"):
                self._entry(entry_of(packet.stat))
            else:
                self._end_of_listing()
        elif kind == Packet.ERR:
            raise told(packet)
        else:
            raise ProtocolError(f"a packet of type {kind} does not belong here")

    def _entry(self, entry: Entry) -> None:
        if self._listed:
            raise ProtocolError("an entry comes after the end of the listing")
        number = self._receiving.listed(entry)
        step = self._receiving.step(entry, number)
        if step is Step.MAKE:
            self._work.append(partial(self._writer.make, entry))
        elif step is Step.LINK:
            self._links.append(partial(self._writer.make, entry))
        elif step is Step.FETCH:
            self.asks.append(number)

    def _end_of_listing(self) -> None:
        self._listed = True
        self._work += [partial(self._writer.remove, path) for path in self._receiving.gone()]

    def _data(self, number: int, data: bytes) -> None:
        entry = self._receiving.wanted(number)
        pieces = self._pieces.setdefault(number, [])
        if data:
            pieces.append(data)
            self._buffered += len(data)
            self.bytes += len(data)
            if self._buffered >= BATCH_BYTES:
                self._write_all()
            return
        self._receiving.whole(number)
        self._work.append(partial(self._writer.write, number, entry, self._pieces.pop(number), last=True))

    def _write_all(self) -> None:
        """What has come of files that are not whole."""
        for number, pieces in self._pieces.items():
            if pieces:
                entry = self._receiving.wanted(number)
                self._work.append(partial(self._writer.write, number, entry, pieces, last=False))
                self._pieces[number] = []


def told(packet: Packet) -> ContextError:
    """The other side's ERR."""
    return ContextError(packet.data[:_SHOWN].decode(errors="replace") or "the other side gave up without a reason")
