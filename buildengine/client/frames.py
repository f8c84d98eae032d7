"""Calls of the gateway API over a socket, from inside a build file's process: `buildengine.api.frames`.

`call_now` waits for its answer with the whole process, for who cannot await: an import statement. So does `call`, for a
build that does one thing after the other; while a task reads (`run`) it waits as everything does under trio.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from buildengine.api import frames
from buildengine.api.frames import Frame, Kind
from buildengine.api.rpc import Code, RpcError
from buildengine.api.statusbytes import decode

if TYPE_CHECKING:  # most build files do without
    import trio

_RECEIVE = 256 << 10


class _Waiting:
    """One call without an answer yet. `wake` is called when it has come, or nobody is there to give one."""

    def __init__(self) -> None:
        self.is_over = False
        self.answer: Frame | None = None
        self.wake: Callable[[], object] = bool

    def end(self, answer: Frame | None) -> None:
        self.is_over, self.answer = True, answer
        self.wake()

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
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._is_open = True
        self._is_read = False  # by `run`
        self._sending: trio.Lock | None = None

    async def call(self, method: str, request: bytes) -> bytes:
        """`buildengine.client.gateway.Call`"""
        if not self._is_read:
            return self.call_now(method, request)

        import trio

        waiting = self._begin(method, request)
        self._sending = self._sending or trio.Lock()
        async with self._sending:
            while not self._flush():
                await trio.lowlevel.wait_writable(self._socket)
        answered = trio.Event()
        waiting.wake = answered.set
        if not waiting.is_over:
            await answered.wait()
        return waiting.result()

    def call_now(self, method: str, request: bytes) -> bytes:
        """The same, while nothing else happens in this process; answers to other calls are kept."""
        waiting = self._begin(method, request)
        poll = select.poll()
        while not waiting.is_over:
            poll.register(self._socket, select.POLLIN | (0 if self._flush() else select.POLLOUT))
            poll.poll()
            self._receive()
        return waiting.result()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Take answers until the engine has gone, or this is cancelled."""
        import trio

        self._is_read = True
        task_status.started()
        try:
            while self._is_open:
                await trio.lowlevel.wait_readable(self._socket)
                self._receive()
        finally:
            self._is_read = False

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
            waiting.end(None)
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
                waiting.end(frame)

    def _end(self) -> None:
        self._is_open = False
        self._unsent.clear()
        while self._waiting:
            self._waiting.popitem()[1].end(None)
