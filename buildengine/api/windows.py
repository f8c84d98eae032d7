"""The windows that we grant: how much the other side may send (RFC 9113 section 5.2).

A stream's is given back as its messages are taken, so a slow reader holds its sender. The connection's is given back
as bytes come, unless much is held already: a call that nobody reads must not hold the others.
"""

from __future__ import annotations

from collections.abc import Collection

from buildengine.api import framing
from buildengine.api.outbox import Outbox
from buildengine.api.streams import STREAM_WINDOW, Stream

CONNECTION_WINDOW = 8 << 20  # bytes
MAX_HELD = 64 << 20  # bytes of messages that nobody has taken, of all streams, before the connection's window closes
MAX_UNFINISHED = 256 << 20  # bytes of messages that have begun, of all streams
MESSAGE_COST = 256  # bytes that a message takes beside its own: many empty ones count, too
_DEFAULT_WINDOW = 65535


class Windows:
    """Of one connection and its streams."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._left = CONNECTION_WINDOW  # bytes that the other side may still send
        self._owed = 0  # of it, what is not given back yet
        self._held = 0  # bytes of messages not taken yet; not of those that have just begun, which nobody can take
        self._unfinished = 0  # bytes of those
        outbox.control(_update(0, CONNECTION_WINDOW - _DEFAULT_WINDOW))

    def received(self, length: int) -> bool:
        """False when it is more than we granted."""
        self._left -= length
        self._owed += length
        self._give_back()
        return self._left >= 0

    def received_by(self, stream: Stream, length: int) -> bool:
        """As `received`, of one stream's window."""
        stream.window -= length
        return stream.window >= 0

    def hold(self, stream: Stream, messages: Collection[framing.Message]) -> None:
        """Until they are taken."""
        cost = _size(messages) + MESSAGE_COST * len(messages)
        stream.held += cost
        self._held += cost

    def hold_unfinished(self, stream: Stream) -> bool:
        """What its messages have left over. False when all streams together have too much of it."""
        self._unfinished += stream.cutter.waiting - stream.unfinished
        stream.unfinished = stream.cutter.waiting
        self._grant_large(stream)
        return self._unfinished <= MAX_UNFINISHED

    def taken(self, stream: Stream, messages: Collection[framing.Message]) -> None:
        size = _size(messages)
        stream.held -= size + MESSAGE_COST * len(messages)
        self._held -= size + MESSAGE_COST * len(messages)
        self.release(stream, size)

    def release(self, stream: Stream, size: int) -> None:
        """Small amounts wait."""
        repaid = min(stream.extra, size)
        stream.extra -= repaid
        stream.owed += size - repaid
        if stream.owed >= STREAM_WINDOW // 4 and not stream.remote_ended:
            self._outbox.control(_update(stream.number, stream.owed))
            stream.window += stream.owed
            stream.owed = 0
        self._give_back()

    def forget(self, stream: Stream) -> None:
        self._held -= stream.held
        self._unfinished -= stream.unfinished
        stream.held = stream.unfinished = 0
        stream.cutter.clear()
        self._give_back()

    def _grant_large(self, stream: Stream) -> None:
        """A message larger than the window could never end: as much more as it takes."""
        short = stream.cutter.missing - stream.window
        if short > 0 and not stream.remote_ended:
            self._outbox.control(_update(stream.number, short))
            stream.window += short
            stream.extra += short

    def _give_back(self) -> None:
        if self._owed >= CONNECTION_WINDOW // 4 and self._held <= MAX_HELD:
            self._outbox.control(_update(0, self._owed))
            self._left += self._owed
            self._owed = 0


def _size(messages: Collection[framing.Message]) -> int:
    return sum([message.size for message in messages])


def _update(stream: int, increment: int) -> bytes:
    return framing.frame(framing.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))
