"""What one connection has to send: control frames first, then the streams in turn, as far as the windows allow."""

from __future__ import annotations

import h2.connection
import h2.errors
import h2.exceptions

from buildengine.api import framing
from buildengine.api.streams import Stream

MAX_FRAME = 64 << 10  # bytes of one DATA frame, where the other side takes so many
OUTPUT = 256 << 10  # bytes of one write, about


class Outbox:
    """Small messages of one stream leave together in one frame; the streams take turns, a frame each."""

    def __init__(self, connection: h2.connection.H2Connection, *, client: bool) -> None:
        self._h2 = connection
        self._client = client
        self._control = bytearray()
        self._ready: dict[int, Stream] = {}  # have something to send; in turn
        self._waiting: dict[int, Stream] = {}  # the connection's or their own window is closed

    @property
    def control_size(self) -> int:
        """Bytes of answers to what the other side sent: it may be flooding us, and not reading."""
        return len(self._control)

    @property
    def idle(self) -> bool:
        return not self._ready and not self._control

    def control(self, frames: bytes = b"") -> None:
        """Queue `frames`, behind what h2 has made meanwhile."""
        self._control += self._h2.data_to_send()
        self._control += frames

    def ready(self, stream: Stream) -> None:
        """It has data, or an end, to send; or its window has opened."""
        if stream.number not in self._waiting:
            self._ready[stream.number] = stream

    def drop(self, stream: Stream) -> None:
        stream.pending.clear()
        self._ready.pop(stream.number, None)
        self._waiting.pop(stream.number, None)

    def window_opened(self) -> None:
        """Some window: who waited tries again."""
        self._ready |= self._waiting
        self._waiting.clear()

    def take(self) -> tuple[bytes, list[Stream]]:
        """Bytes for one write, and the streams whose last byte is among them."""
        self.control()
        out, self._control = self._control, bytearray()
        ended = []
        while self._ready and len(out) < OUTPUT:
            number = next(iter(self._ready))
            stream = self._ready.pop(number)
            if stream.pending and not self._write_frame(stream, out):
                self._waiting[number] = stream
            elif stream.pending:
                self._ready[number] = stream
            elif stream.ending is not None:
                self._end(stream, out)
                ended.append(stream)
        return bytes(out), ended

    def _write_frame(self, stream: Stream, out: bytearray) -> bool:
        theirs = self._h2.streams[stream.number]
        length = min(
            len(stream.pending),
            self._h2.outbound_flow_control_window,
            theirs.outbound_flow_control_window,
            self._h2.max_outbound_frame_size,
            MAX_FRAME,
        )
        if length <= 0:
            return False
        self._h2.outbound_flow_control_window -= length
        theirs.outbound_flow_control_window -= length
        out += framing.frame_header(length, framing.DATA, 0, stream.number)
        with memoryview(stream.pending) as pending:
            out += pending[:length]
        del stream.pending[:length]
        return True

    def _end(self, stream: Stream, out: bytearray) -> None:
        number, trailers = stream.number, stream.ending
        stream.local_ended = True
        if trailers:
            self._h2.send_headers(number, trailers, end_stream=True)
        else:
            self._h2.end_stream(number)
        if not self._client and not stream.remote_ended:
            # The whole answer is there, nothing more is wanted (RFC 9113 8.1).
            self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
        out += self._h2.data_to_send()
