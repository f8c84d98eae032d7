"""gRPC over HTTP/2 without I/O: bytes in and events out, commands in and bytes out; either role.

`h2` keeps the protocol's state: header blocks, settings, the life of streams, the windows of the other side. DATA
frames, which are most of the work, are handled here: h2 takes 10 us and four copies for each. It is told of those
that end a stream. GOAWAY is handled here too: for h2 it ends the connection, while calls that go on should end well.

Not here: what a path means, deadlines, tasks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from time import monotonic

import h2.errors
import h2.events
import h2.exceptions

from buildengine.api import framing, h2settings, headers
from buildengine.api.flood import Allowance
from buildengine.api.headers import Status
from buildengine.api.outbox import MAX_FRAME, Outbox
from buildengine.api.rpc import Code, Metadata
from buildengine.api.streams import (
    AnswerBegun,
    Broken,
    CallEnded,
    CallOpened,
    Event,
    GoingAway,
    HalfClosed,
    MessagesReceived,
    Stream,
)
from buildengine.api.windows import Windows

MAX_CONTROL = 64 << 10  # bytes of answers that wait to be written, before reading should wait

_USEFUL = frozenset({framing.HEADERS, framing.CONTINUATION, framing.WINDOW_UPDATE})
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_Error = h2.errors.ErrorCodes


class Core:
    """One connection."""

    def __init__(self, *, client: bool, agent: str = "", clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._agent = agent
        self._h2 = h2settings.begin(client=client)
        self._outbox = Outbox(self._h2, client=client)
        self._windows = Windows(self._outbox)
        self._streams: dict[int, Stream] = {}
        self._cutter = framing.FrameCutter(MAX_FRAME)
        self._preface = b"" if client else _PREFACE  # what of it is still to come
        self._in_header_block = False  # between HEADERS and the last CONTINUATION
        self._resets = Allowance(4096, 512, clock)
        self._nuisances = Allowance(4096, 512, clock)
        self._settled = False  # the other side has told its settings
        self._leaving = False  # we take no more calls
        self.going_away = ""  # why the other side takes no more calls
        self.broken = ""  # why the connection is over

    # -- what the other side sent

    def receive(self, data: bytes) -> list[Event]:
        """Never raises for what the other side did: that becomes a `Broken` or a `CallEnded`."""
        events: list[Event] = []
        if self.broken:
            return events
        try:
            for frame in self._cutter.cut(self._skip_preface(data)):
                if self.broken:
                    break
                if frame.kind == framing.DATA and not self._in_header_block:
                    self._receive_data(frame, events)
                else:
                    self._receive_other(frame, events)
        except framing.FrameTooLarge as error:
            self._break(_Error.FRAME_SIZE_ERROR, str(error), events)
        except h2.exceptions.ProtocolError as error:  # h2 has queued its GOAWAY
            self._over(f"{type(error).__name__}: {error}", events)
        self._outbox.control()
        return events

    def _skip_preface(self, data: bytes) -> bytes:
        if not self._preface:
            return data
        begun = data[: len(self._preface)]
        self._h2.receive_data(begun)  # raises ProtocolError
        self._preface = self._preface[len(begun) :]
        return data[len(begun) :]

    def _receive_data(self, frame: framing.Frame, events: list[Event]) -> None:
        length = len(frame.payload)
        if not self._windows.received(length):
            return self._break(_Error.FLOW_CONTROL_ERROR, "more data than the connection's window", events)
        stream = self._streams.get(frame.stream)
        if stream is None or stream.remote_ended or (stream.ending is not None and not self._client):
            return self._stray_data(frame, length, events)
        granted = self._windows.received_by(stream, length)
        if not granted or (self._client and not stream.begun):
            wrong = "data before headers" if granted else "more data than the stream's window"
            return self._fail(stream, Status(code=Code.INTERNAL, message=wrong), events)
        try:
            data = frame.data()
        except ValueError as error:
            return self._break(_Error.PROTOCOL_ERROR, str(error), events)
        if data:
            self._nuisances.earn()
        elif not frame.flags & framing.END_STREAM:
            self._count_nuisance(events)
        if length > len(data):
            self._windows.release(stream, length - len(data))
        self._receive_messages(stream, data, events)
        if frame.flags & framing.END_STREAM and stream.number in self._streams:
            self._to_h2(framing.frame(framing.DATA, framing.END_STREAM, stream.number), events)
        return None

    def _receive_messages(self, stream: Stream, data: bytes, events: list[Event]) -> None:
        messages: list[framing.Message] = []
        wrong: Status | None = None
        try:
            messages.extend(stream.cutter.cut(data))  # those before a bad one are in it
        except framing.MessageError as error:
            wrong = error.status
        if messages:
            self._windows.hold(stream, messages)
            events.append(MessagesReceived(stream=stream.number, messages=messages))
        if wrong is None and not self._windows.hold_unfinished(stream):
            wrong = Status(code=Code.RESOURCE_EXHAUSTED, message="too many large messages at a time")
        if wrong is not None:
            self._fail(stream, wrong, events)

    def _stray_data(self, frame: framing.Frame, length: int, events: list[Event]) -> None:
        """Data of a call that is over may still be under way; of one that never was, h2 says what is wrong."""
        if not length:
            self._count_nuisance(events)
        known = 0 < frame.stream <= self._highest() and frame.stream % 2 == 1
        if not known or (frame.stream in self._streams and frame.flags & framing.END_STREAM):
            self._to_h2(framing.frame(framing.DATA, frame.flags & framing.END_STREAM, frame.stream), events)

    def _highest(self) -> int:
        return self._h2.highest_outbound_stream_id if self._client else self._h2.highest_inbound_stream_id

    def _receive_other(self, frame: framing.Frame, events: list[Event]) -> None:
        kind = frame.kind
        known = frame.stream in self._streams
        if kind not in _USEFUL and not (kind == framing.RST_STREAM and known) and not self._count_nuisance(events):
            return None
        if kind == framing.GOAWAY and not self._in_header_block and len(frame.payload) >= 8:
            return self._receive_goaway(frame, events)
        if kind in (framing.HEADERS, framing.PUSH_PROMISE) or self._in_header_block:  # CONTINUATION begins none
            self._in_header_block = not frame.flags & framing.END_HEADERS
        return self._to_h2(frame.raw, events)

    def _receive_goaway(self, frame: framing.Frame, events: list[Event]) -> None:
        last, code = struct.unpack_from("!II", frame.payload)
        text = frame.payload[8:].decode(errors="replace")
        reason = ": ".join(filter(None, [f"the other side takes no more calls (HTTP/2 error {code})", text]))
        if not self.going_away:
            events.append(GoingAway(reason=reason))
        self.going_away = reason
        for stream in list(self._streams.values()) if self._client else ():
            if stream.number > last & 0x7FFFFFFF:
                self._forget(stream)
                events.append(CallEnded(stream=stream.number, status=Status(code=Code.UNAVAILABLE, message=reason)))

    # -- what h2 makes of it

    def _to_h2(self, raw: bytes, events: list[Event]) -> None:
        for event in self._h2.receive_data(raw):
            match event:
                case h2.events.WindowUpdated():
                    self._outbox.window_opened()
                case h2.events.RemoteSettingsChanged():
                    self._settled = True
                    self._outbox.window_opened()
                case h2.events.RequestReceived():
                    self._request(event, events)
                case h2.events.ResponseReceived():
                    self._response(event, events)
                case h2.events.TrailersReceived():
                    if event.stream_id in self._streams:
                        self._streams[event.stream_id].status = headers.parse_trailers(event.headers)
                case h2.events.StreamEnded():
                    self._ended(event.stream_id, events)
                case h2.events.StreamReset():
                    self._was_reset(event, events)

    def _request(self, event: h2.events.RequestReceived, events: list[Event]) -> None:
        stream = self._streams[event.stream_id] = Stream(event.stream_id)
        if self._leaving:
            self.reset(stream.number, _Error.REFUSED_STREAM)
            return
        try:
            request = headers.parse_request(event.headers)
        except headers.NotGrpc as error:
            self._h2.send_headers(stream.number, [(b":status", str(error.status).encode())], end_stream=True)
            stream.local_ended, stream.remote_ended = True, event.stream_ended is not None
            self.reset(stream.number, _Error.NO_ERROR)
            return
        except ValueError as error:
            self.finish(stream.number, Status(code=Code.INTERNAL, message=str(error)))
            return
        if request.encoding not in framing.ENCODINGS:
            wrong = f"grpc: Decompressor is not installed for grpc-encoding {request.encoding!r}"
            self.finish(stream.number, Status(code=Code.UNIMPLEMENTED, message=wrong))
            return
        events.append(CallOpened(stream=stream.number, request=request))

    def _response(self, event: h2.events.ResponseReceived, events: list[Event]) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.begun = True
        if not headers.is_trailers_only(event.headers):
            metadata, encoding = headers.parse_response(event.headers)
            events.append(AnswerBegun(stream=stream.number, metadata=metadata, encoding=encoding))
            return
        stream.status = headers.parse_trailers(event.headers)
        if event.stream_ended is None:  # a body follows that is none of gRPC
            self._fail(stream, stream.status, events)

    def _ended(self, number: int, events: list[Event]) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.remote_ended = True
        if stream.ending is not None and not self._client:
            return  # answered already
        cut_off = stream.cutter.missing and (stream.status is None or stream.status.code == Code.OK)
        if cut_off:
            self._fail(stream, Status(code=Code.INTERNAL, message="the stream ended within a message"), events)
        elif self._client:
            status = stream.status or headers.parse_trailers(())
            self.reset(number, _Error.NO_ERROR)
            events.append(CallEnded(stream=number, status=status))
        else:
            events.append(HalfClosed(stream=number))

    def _was_reset(self, event: h2.events.StreamReset, events: list[Event]) -> None:
        """By the other side; or by h2, for a window that it opened too far."""
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        self._forget(stream)
        events.append(CallEnded(stream=stream.number, status=headers.reset_status(event.error_code or 0)))
        if not self._resets.spend():
            self._break(_Error.ENHANCE_YOUR_CALM, "too many resets", events)

    # -- what we do

    @property
    def calls(self) -> int:
        """Calls that have not ended."""
        return len(self._streams)

    @property
    def can_open(self) -> bool:
        """Client: the other side takes one more call now; it says how many at a time when it begins."""
        most = self._h2.remote_settings.max_concurrent_streams
        return self._settled and not (self.broken or self.going_away) and len(self._streams) < most

    @property
    def flooded(self) -> bool:
        """Answers wait to be written: to read more would only make more of them."""
        return self._outbox.control_size > MAX_CONTROL

    @property
    def wants_output(self) -> bool:
        return not self._outbox.idle

    def open(self, path: str, metadata: Metadata = (), timeout: float | None = None) -> int:
        """Client: a new call's stream. Raises ValueError for metadata that HTTP/2 cannot carry."""
        request = headers.request(path, metadata, timeout, self._agent)
        stream = Stream(self._h2.get_next_available_stream_id())
        self._h2.send_headers(stream.number, request)
        self._outbox.control()
        self._streams[stream.number] = stream
        return stream.number

    def begin_answer(self, number: int, metadata: Metadata) -> None:
        """Server: the first headers. Raises ValueError as `open` does."""
        stream = self._streams.get(number)
        if stream is not None and not stream.begun:
            self._h2.send_headers(number, headers.response(metadata))
            self._outbox.control()
            stream.begun = True

    def send(self, number: int, payload: bytes) -> int:
        """One message; the bytes that wait to be written on this stream."""
        stream = self._streams.get(number)
        if stream is None or stream.ending is not None:
            return 0
        if not stream.begun and not self._client:
            self.begin_answer(number, ())
        stream.pending += framing.prefix(len(payload))
        stream.pending += payload
        self._outbox.ready(stream)
        return len(stream.pending)

    def pending(self, number: int) -> int:
        """Bytes that wait to be written on this stream."""
        stream = self._streams.get(number)
        return len(stream.pending) if stream is not None else 0

    def half_close(self, number: int) -> None:
        """Client: no message of ours will follow."""
        stream = self._streams.get(number)
        if stream is not None and stream.ending is None:
            stream.ending = []
            self._outbox.ready(stream)

    def finish(self, number: int, status: Status) -> None:
        """Server: the status, behind all messages; alone when there were none."""
        stream = self._streams.get(number)
        if stream is None or stream.ending is not None:
            return
        limit = self._h2.remote_settings.max_header_list_size or h2settings.MAX_HEADERS
        stream.ending = [*([] if stream.begun else headers.response(())), *headers.trailers(status, limit)]
        self._windows.forget(stream)
        self._outbox.ready(stream)

    def reset(self, number: int, code: int = _Error.CANCEL) -> None:
        """End the call at once, unsent messages included; no event follows."""
        stream = self._streams.get(number)
        if stream is None:
            return
        self._forget(stream)
        if not (stream.local_ended and stream.remote_ended):
            self._h2.reset_stream(number, code)
            self._outbox.control()

    def ping(self) -> None:
        """Whoever is there answers."""
        self._h2.ping(bytes(8))
        self._outbox.control()

    def go_away(self) -> None:
        """Server: no more calls. Those that have begun go on; the other side may try later ones elsewhere."""
        self._leaving = True
        payload = struct.pack("!II", self._h2.highest_inbound_stream_id, _Error.NO_ERROR)
        self._outbox.control(framing.frame(framing.GOAWAY, 0, 0, payload))

    def taken(self, number: int, messages: Collection[framing.Message]) -> None:
        """The servicer or caller has them: the other side may send as much again."""
        stream = self._streams.get(number)
        if stream is not None and (self._client or stream.ending is None):
            self._windows.taken(stream, messages)

    def output(self) -> bytes:
        """Bytes for one write; empty when there is nothing that may be sent now."""
        data, ended = self._outbox.take()
        if len(data) > framing.HEADER:
            self._nuisances.earn()
        for stream in ended:
            if not self._client or stream.remote_ended:
                self._forget(stream)
        return data

    def _fail(self, stream: Stream, status: Status, events: list[Event]) -> None:
        """The other side did what cannot be taken: the call ends for both."""
        if self._client:
            self.reset(stream.number)
        else:
            stream.pending.clear()
            self.finish(stream.number, status)
        events.append(CallEnded(stream=stream.number, status=status))

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        self._outbox.drop(stream)
        self._windows.forget(stream)

    def _count_nuisance(self, events: list[Event]) -> bool:
        """False when the connection is over for it."""
        if not self._nuisances.spend():
            self._break(_Error.ENHANCE_YOUR_CALM, "too many pings, settings or empty frames", events)
            return False
        return True

    def _break(self, code: int, reason: str, events: list[Event]) -> None:
        self._h2.close_connection(code, additional_data=reason.encode())
        self._over(reason, events)

    def _over(self, reason: str, events: list[Event]) -> None:
        self.broken = reason
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._outbox.control()
        events.append(Broken(reason=reason))
