"""Calls of one message each way as frames on a byte stream: what a build file and the engine talk over a socketpair.

    length (4 bytes) | kind (1) | number of the call (4) | the rest, `length` bytes with kind and number
    CALL     the method's name, its length (1 byte) before it, then the request
    ANSWER   the answer
    FAILURE  a google.rpc.Status

Numbers are big-endian. Pure: bytes to frames and back. The messages are those that gRPC would carry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from buildengine.api.rpc import MAX_MESSAGE

LARGEST = MAX_MESSAGE + (64 << 10)  # of a frame: a message, and what is said around it

_HEAD = struct.Struct(">IBI")
_LENGTH = struct.Struct(">I")
_WITHIN = _HEAD.size - _LENGTH.size  # bytes of the head that the length counts


class Kind(IntEnum):
    CALL = 0
    ANSWER = 1
    FAILURE = 2


class Frame(NamedTuple):
    kind: Kind
    number: int
    payload: bytes


class BrokenFrame(Exception):
    """The other side does not keep to the protocol: one sentence about it."""


def encode(frame: Frame) -> bytes:
    """Raises BrokenFrame for one that is too large."""
    length = _WITHIN + len(frame.payload)
    if length > LARGEST:
        raise BrokenFrame(f"a message of {len(frame.payload)} bytes is larger than {MAX_MESSAGE}")
    return _HEAD.pack(length, frame.kind, frame.number) + frame.payload


def call(number: int, method: str, request: bytes) -> Frame:
    name = method.encode()
    return Frame(Kind.CALL, number, bytes([len(name)]) + name + request)


def called(frame: Frame) -> tuple[str, bytes]:
    """The method and the request of a CALL. Raises BrokenFrame."""
    payload = frame.payload
    end = 1 + payload[0] if payload else 1
    if len(payload) < end:
        raise BrokenFrame("a call names no method")
    return payload[1:end].decode(errors="replace"), payload[end:]


class Reader:
    """Takes bytes as they come, gives frames as they are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises BrokenFrame, before it waits for the rest of a frame that is too large."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    @property
    def is_between(self) -> bool:
        """Whether no frame has begun that is not whole."""
        return not self._buffer

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if not _WITHIN <= length <= LARGEST:
            raise BrokenFrame(f"a frame says that it has {length} bytes")
        end = _LENGTH.size + length
        if len(buffer) < end:
            return None
        _, kind, number = _HEAD.unpack_from(buffer)
        if kind not in set(Kind):
            raise BrokenFrame(f"a frame is of the unknown kind {kind}")
        payload = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        return Frame(Kind(kind), number, payload)
