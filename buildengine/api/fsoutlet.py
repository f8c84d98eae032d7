"""What the sender of a listing has to say: a part of the listing, then what was asked for meanwhile, in turn.

The counterpart of `fsintake`. Packets of the receiver go in with `take`; `packets` gives what is to be sent next. It
reads the disk and blocks: whoever sends calls it from a thread, one call at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from buildengine.api.fsfiles import Files
from buildengine.api.fsintake import told
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsstat import stat_of
from buildengine.api.fsutil import Entry, ProtocolError, Sending

_ENTRIES = 512  # of the listing, at once


class Outlet:
    """`entries` are the listing, in its order; `opener` gives a descriptor of a file's contents. `close` it when
    `packets` does not run."""

    def __init__(self, entries: Iterator[Entry], opener: Callable[[bytes], int]) -> None:
        self._entries = entries
        self._sending = Sending()
        self._files = Files(opener)
        self._listed = False
        self._lists_next = True
        self.is_whole = False  # the receiver has what it wants

    def close(self) -> None:
        self._files.close()

    def take(self, packet: Packet) -> None:
        """Raises ContextError."""
        if packet.type == Packet.REQ:
            self._files.requested.append((packet.id, self._sending.requested(packet.id)))
        elif packet.type == Packet.FIN:
            self.is_whole = True
        elif packet.type == Packet.ERR:
            raise told(packet)
        else:
            raise ProtocolError(f"a packet of type {packet.type} does not belong here")

    def packets(self) -> list[Packet]:
        """None when there is nothing to be said before more is asked for. Raises OSError."""
        self._lists_next = not self._listed and (self._lists_next or not self._files.busy)
        if self._lists_next:
            self._lists_next = False
            return self._listing()
        self._lists_next = True
        return [Packet(type=Packet.DATA, id=number, data=data) for number, data in self._files.read()]

    def _listing(self) -> list[Packet]:
        entries = list(islice(self._entries, _ENTRIES))
        for entry in entries:
            self._sending.listed(entry)
        packets = [Packet(type=Packet.STAT, stat=stat_of(entry)) for entry in entries]
        if len(entries) < _ENTRIES:
            self._listed = True
            packets.append(Packet(type=Packet.STAT))
        return packets
