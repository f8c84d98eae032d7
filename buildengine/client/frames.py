"""Calls of the gateway API over a socket, from inside a build file's process: `buildengine.api.frames` on trio.

One task reads (`run`). `call` waits for its answer as everything under trio does; `call_now` waits with the whole
process, for who cannot await: an import statement.
"""

from __future__ import annotations

import select
import socket
from itertools import count

import trio

from buildengine.api import frames
from buildengine.api.frames import Frame, Kind
from buildengine.api.rpc import Code, RpcError
from buildengine.api.statusbytes import decode

_RECEIVE = 256 << 10


class _Waiting:
    """One call without an answer yet."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Frame | None = None

    def result(self) -> bytes:
        if self.answer is None:
            raise RpcError(Code.UNAVAILABLE, "the engine has gone")
        if self.answer.kind is Kind.FAILURE:
            raise decode(self.answer.payload)
        return self.answer.payload


class Channel:
    """The child's end of the socketpair. It is the channel's from here on, and non-blocking."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._reader = frames.Reader()
        self._unsent = bytearray()
        self._sending = trio.Lock()
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._is_open = True

    async def call(self, method: str, request: bytes) -> bytes:
        """`buildengine.client.gateway.Call`"""
        waiting = self._begin(method, request)
        async with self._sending:
            while not self._flush():
                await trio.lowlevel.wait_writable(self._socket)
        await waiting.answered.wait()
        return waiting.result()

    def call_now(self, method: str, request: bytes) -> bytes:
        """The same, while nothing else happens in this process; answers to other calls are kept."""
        waiting = self._begin(method, request)
        poll = select.poll()
        while not waiting.answered.is_set():
            poll.register(self._socket, select.POLLIN | (0 if self._flush() else select.POLLOUT))
            poll.poll()
            self._receive()
        return waiting.result()

    async def run(self) -> None:
        """Take answers until the engine has gone."""
        while self._is_open:
            await trio.lowlevel.wait_readable(self._socket)
            self._receive()

    def _begin(self, method: str, request: bytes) -> _Waiting:
        number = next(self._numbers)
        try:
            frame = frames.encode(frames.call(number, method, request))
        except frames.BrokenFrame as error:
            raise RpcError(Code.RESOURCE_EXHAUSTED, str(error)) from None
        waiting = _Waiting()
        if self._is_open:
            self._unsent += frame
            self._waiting[number] = waiting
        else:
            waiting.answered.set()
        return waiting

    def _flush(self) -> bool:
        """Whether all is sent."""
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return False
        except OSError:
            self._end()
        return True

    def _receive(self) -> None:
        """Take what is there, if anything is."""
        try:
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
        for frame in self._reader.feed(data):
            waiting = self._waiting.pop(frame.number, None)
            if waiting is not None:
                waiting.answer = frame
                waiting.answered.set()

    def _end(self) -> None:
        self._is_open = False
        self._unsent.clear()
        while self._waiting:
            self._waiting.popitem()[1].answered.set()
