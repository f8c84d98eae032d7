"""Frames of HTTP/2 and messages of gRPC cut out of bytes that arrive anyhow. No state of the protocol, no I/O.

Sources: RFC 9113 section 4.1 (frames) and 6.1 (DATA), "gRPC over HTTP/2" (Length-Prefixed-Message).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from buildengine.api.headers import Status
from buildengine.api.rpc import MAX_MESSAGE, Code
from buildengine.values import dataclass

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
HEADER = 9  # bytes before the payload of a frame
IDENTITY = "identity"
ENCODINGS = (IDENTITY, "gzip")  # grpc-encoding that we can read; we write identity
_SMALL = 1 << 10  # bytes of a part of a message
PREFIX = 5  # bytes before a message: compressed flag, length

_HEAD = struct.Struct("!HBBBI")  # length (16 and 8 bits), type, flags, stream
_PREFIX = struct.Struct("!BI")
_STREAM = 0x7FFFFFFF  # the bit above the number of a stream is reserved


class FrameTooLarge(Exception):
    """A frame longer than we said we take."""


class MessageError(Exception):
    """A message that cannot be taken. `status` ends its call."""

    def __init__(self, message: str, code: Code = Code.INTERNAL) -> None:
        super().__init__(message)
        self.status = Status(code=code, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of HTTP/2."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def raw(self) -> bytes:
        return frame(self.kind, self.flags, self.stream, self.payload)

    def data(self) -> bytes:
        """The payload of a DATA frame without its padding. Raises ValueError when there is more padding than frame."""
        if not self.flags & PADDED:
            return self.payload
        length = len(self.payload)
        padding = self.payload[0] if length else 0
        if padding >= length:
            raise ValueError("more padding than data")
        return self.payload[1 : length - padding]


class FrameCutter:
    """Bytes in, whole frames out; what is not yet whole waits for the rest (at most one frame).

    Data that follow each other on one stream come as one frame: where a sender has cut them says nothing, and senders
    that write small messages cut often.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[Frame]:
        """Raises FrameTooLarge when the iteration gets there."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        pieces: list[bytes] = []  # of data, of the stream `running`
        running = 0
        while end - at >= HEADER:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > self._largest or end - at < HEADER + length:
                break
            payload = data[at + HEADER : at + HEADER + length]
            at += HEADER + length
            joins = kind == DATA and not flags and length
            if pieces and not (joins and stream == running):
                yield _joined(running, pieces)
                pieces = []
            if joins:
                running = stream
                pieces.append(payload)
            else:
                yield Frame(kind=kind, flags=flags, stream=stream & _STREAM, payload=payload)
        if pieces:
            yield _joined(running, pieces)
        self._rest = data[at:]
        if end - at >= HEADER and length > self._largest:
            raise FrameTooLarge(f"a frame of {length} bytes, {self._largest} are taken")


def _joined(stream: int, pieces: list[bytes]) -> Frame:
    return Frame(kind=DATA, flags=0, stream=stream & _STREAM, payload=b"".join(pieces))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_header(len(payload), kind, flags, stream) + payload


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


class Message(NamedTuple):
    """One message as it came."""

    payload: bytes
    compressed: bool

    @property
    def size(self) -> int:
        """What it took of the flow-control window."""
        return PREFIX + len(self.payload)

    def decoded(self, encoding: str) -> bytes:
        """Raises MessageError. Decoded when it is taken, not when it comes: a queue holds what was paid for."""
        return decompress(self.payload, encoding) if self.compressed else self.payload


class MessageCutter:
    """The messages of one stream out of the payloads of its DATA frames."""

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = []
        self._have = 0  # bytes in parts
        self._need = PREFIX  # bytes until something can be done

    @property
    def waiting(self) -> int:
        """Bytes of the message that has begun."""
        return self._have

    @property
    def missing(self) -> int:
        """Bytes until the message that has begun is whole; 0 between messages."""
        return self._need - self._have if self._have else 0

    def cut(self, data: bytes) -> Iterator[Message]:
        """Raises MessageError when a message is too large or its flag is none."""
        self._keep(data)
        if self._have < self._need:
            return
        data = bytes(self._parts[0]) if len(self._parts) == 1 else b"".join(self._parts)
        at, end = 0, len(data)
        self._need = PREFIX
        while end - at >= PREFIX:
            flag, length = _PREFIX.unpack_from(data, at)
            if flag > 1:
                raise MessageError(f"a message with compressed flag {flag}")
            if length > MAX_MESSAGE:
                raise _too_large(length)
            whole = at + PREFIX + length
            if whole > end:
                self._need = PREFIX + length
                break
            yield Message(data[at + PREFIX : whole], flag == 1)
            at = whole
        self._parts = [data[at:]] if at < end else []
        self._have = end - at

    def clear(self) -> None:
        """Nobody wants the message that has begun."""
        self._parts.clear()
        self._have = 0

    def _keep(self, data: bytes) -> None:
        """Small parts become one: each would cost many times what it holds."""
        self._have += len(data)
        if len(data) >= _SMALL:
            self._parts.append(data)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1] += data
        else:
            self._parts.append(bytearray(data))


def prefix(length: int) -> bytes:
    return _PREFIX.pack(0, length)


def decompress(payload: bytes, encoding: str) -> bytes:
    """At most MAX_MESSAGE bytes come out. Raises MessageError."""
    if encoding != "gzip":
        raise MessageError(f"a compressed message, and grpc-encoding is {encoding!r}")
    inflate = zlib.decompressobj(wbits=31)
    try:
        data = inflate.decompress(payload, MAX_MESSAGE + 1)
    except zlib.error as error:
        raise MessageError(f"a message that is not gzip: {error}") from error
    if len(data) > MAX_MESSAGE:
        raise _too_large(len(data))
    if not inflate.eof:
        raise MessageError("a gzip message that is cut off")
    return data


def _too_large(length: int) -> MessageError:
    return MessageError(f"grpc: received message larger than max ({length} vs. {MAX_MESSAGE})", Code.RESOURCE_EXHAUSTED)
