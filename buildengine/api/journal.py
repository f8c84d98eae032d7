"""The status stream of one build, written once and read as often as somebody asks, from its beginning.

It is a file: what a build says may be gigabytes, and the same bytes are its logs in the build history. Each message
stands behind its length (4 bytes, little-endian), as BuildKit keeps them (solver/llbsolver/history.go, ImportStatus).
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress

import trio

from buildengine.api import convert
from buildengine.api.control_pb2 import StatusResponse
from buildengine.api.vertexstream import VertexStream
from buildengine.events import Event, LogEvent, VertexEvent
from buildengine.history import Steps

_PIECE = 1 << 20  # bytes of one read
_PENDING_EVENTS, _PENDING_OUTPUT = 1000, 256 << 10
_LENGTH = 4


class Journal:
    """`tell` is an EventSink. `fd` is an empty file, open for reading and writing; it stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self._vertices = VertexStream()
        self._pending: list[Event] = []
        self._output = 0
        self._changed = trio.Event()
        self.has_ended = False

    @property
    def steps(self) -> Steps:
        return self._vertices.steps

    @property
    def vertices(self) -> Collection[VertexEvent]:
        return self._vertices.vertices

    def tell(self, event: Event) -> None:
        if self.has_ended:
            return
        self._pending.append(event)
        self._output += len(event.data) if isinstance(event, LogEvent) else 0
        if len(self._pending) >= _PENDING_EVENTS or self._output >= _PENDING_OUTPUT:
            self._write()
        self._wake()

    def end(self, *, clock: float | None = None) -> None:
        """Nothing follows; what has not ended ends now."""
        if not self.has_ended:
            self._write()
            self._append(list(self._vertices.ended(time.time() if clock is None else clock)))
            self.has_ended = True
            self._wake()

    async def follow(self) -> AsyncIterator[StatusResponse]:
        """Every message from the first to the last; waits for those that are still to come."""
        position = 0
        while True:
            changed = self._changed
            self._write()
            if position < self._size:
                start = position
                for response, length in messages(_piece(self._fd, start)):
                    position = start + length
                    yield response
            elif self.has_ended:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _write(self) -> None:
        told, self._pending, self._output = self._pending, [], 0
        self._append([each for event in told for each in self._vertices.told(event)])

    def _append(self, events: list[Event]) -> None:
        """All of it, or nothing where the disk is full: progress that cannot be told is no failure of the build, and
        whoever follows would wait for the rest of a message for ever."""
        data = b"".join(map(_framed, convert.status_responses(events)))
        end = self._size
        try:
            while data:
                written = os.pwrite(self._fd, data, end)
                end += written
                data = data[written:]
            self._size = end
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)


def _framed(response: StatusResponse) -> bytes:
    data = response.SerializeToString()
    return len(data).to_bytes(_LENGTH, "little") + data


def read(fd: int) -> Iterator[StatusResponse]:
    """Every message of a whole journal, e.g. of the logs in the build history."""
    position = 0
    while piece := _piece(fd, position):
        start, before = position, position
        for response, length in messages(piece):
            position = start + length
            yield response
        if position == before:
            return  # the rest is torn


def _piece(fd: int, position: int) -> bytes:
    """At least one message, where there is one."""
    data = os.pread(fd, _PIECE, position)
    wanted = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    return data if wanted <= len(data) or len(data) < _PIECE else os.pread(fd, wanted, position)


def messages(data: bytes) -> Iterator[tuple[StatusResponse, int]]:
    """The whole messages that `data` begins with, and where each ends."""
    position = 0
    while position + _LENGTH <= len(data):
        end = position + _LENGTH + int.from_bytes(data[position : position + _LENGTH], "little")
        if end > len(data):
            return
        yield StatusResponse.FromString(data[position + _LENGTH : end]), end
        position = end
