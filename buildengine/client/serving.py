"""Calls answered on a byte stream, in asyncio: the session's inner side, where the daemon is the client.

grpcio cannot serve on a stream that it did not open; so the sans-I/O core of `buildengine.api.http2` is driven here,
as `buildengine.api.connection` drives it in trio. One task reads, one writes, one runs for each call; none outlives
`serve`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from google.protobuf.message import Message

from buildengine.api import rpc
from buildengine.api.framing import Message as Framed
from buildengine.api.headers import OK, Request, Status
from buildengine.api.http2 import Core
from buildengine.api.inbox import Inbox
from buildengine.api.rpc import Code, Metadata, RpcError
from buildengine.api.streams import CallEnded, CallOpened, Event, HalfClosed, MessagesReceived

_HIGH_WATER = 256 << 10  # bytes of one call that wait to be written before its sender does
_MOST_CALLS = 256


class Bytes(Protocol):
    """A byte stream. `receive` gives b"" at its end, also when it broke; `send` raises RpcError."""

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...


class Services(Protocol):
    """What is served. `find` gives the method of one call, by its path and metadata; it may raise RpcError."""

    def find(self, path: str, metadata: Metadata) -> rpc.Method[Any, Any] | None: ...


async def serve(stream: Bytes, services: Services) -> None:
    """Until the other side has no more to say, or this is cancelled."""
    server = _Server(stream, services)
    await server.run()


class _Call:
    """One call: an `rpc.ServerCall`."""

    def __init__(self, server: _Server, number: int, request: Request, incoming: type[Message]) -> None:
        self._server = server
        self._core = server.core
        self._number = number
        self._request = request
        self._inbox = Inbox(server.core, number, incoming, request.encoding)
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._gone = ""  # why nobody wants an answer any more
        self.task: asyncio.Task[None] | None = None

    # The connection tells.

    def arrived(self, messages: Iterable[Framed]) -> None:
        self._inbox.put(messages)
        self._news.set()

    def half_closed(self) -> None:
        self._inbox.is_last = True
        self._news.set()

    def written(self) -> None:
        self._writable.set()

    def ended(self, why: str) -> None:
        self._gone = why or "the caller has gone"
        self._news.set()
        self._writable.set()
        if self.task is not None:
            self.task.cancel()

    # The servicer asks.

    @property
    def path(self) -> str:
        return self._request.path

    @property
    def metadata(self) -> Metadata:
        return self._request.metadata

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        self._check()
        self._core.begin_answer(self._number, metadata)
        self._server.wake()

    async def send(self, message: Message) -> None:
        self._check()
        waiting = self._core.send(self._number, message.SerializeToString())
        self._server.wake()
        while waiting > _HIGH_WATER:
            self._writable.clear()
            await self._writable.wait()
            self._check()
            waiting = self._core.pending(self._number)

    async def receive(self) -> Any:
        await self._come()
        try:
            return self._inbox.take() if self._inbox else None
        finally:
            self._server.wake()

    async def receive_many(self) -> list[Any]:
        await self._come()
        try:
            return self._inbox.take_all()
        finally:
            self._server.wake()

    async def _come(self) -> None:
        while True:
            self._check()
            if self._inbox or self._inbox.is_last:
                return
            self._news.clear()
            await self._news.wait()

    def _check(self) -> None:
        if self._gone:
            raise RpcError(Code.CANCELLED, self._gone)


class _Server:
    def __init__(self, stream: Bytes, services: Services) -> None:
        self.core = Core(client=False)
        self._stream = stream
        self._services = services
        self._calls: dict[int, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self.wake()

    def wake(self) -> None:
        if self.core.wants_output:
            self._wanted.set()

    async def run(self) -> None:
        writing = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            for call in list(self._calls.values()):
                call.ended("the session has ended")
            writing.cancel()
            await asyncio.gather(writing, *self._tasks, return_exceptions=True)

    async def _read(self) -> None:
        while not self.core.broken:
            data = await self._stream.receive()
            if not data:
                return
            for event in self.core.receive(data):
                self._handle(event)
            self.wake()
            while self.core.flooded:
                self._written.clear()
                await self._written.wait()

    async def _write(self) -> None:
        """A stream that breaks ends the reading too: nothing is to be done about it here."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while data := self.core.output():
                try:
                    await self._stream.send(data)
                except RpcError:
                    return
                self._written.set()
                for call in self._calls.values():
                    call.written()

    def _handle(self, event: Event) -> None:
        match event:
            case CallOpened(stream=number, request=request):
                self._open(number, request)
            case MessagesReceived(stream=number, messages=messages):
                if (call := self._calls.get(number)) is not None:
                    call.arrived(messages)
            case HalfClosed(stream=number):
                if (call := self._calls.get(number)) is not None:
                    call.half_closed()
            case CallEnded(stream=number, status=status):
                if (call := self._calls.get(number)) is not None:
                    call.ended(status.message)

    def _open(self, number: int, request: Request) -> None:
        try:
            method = self._method(request)
        except RpcError as error:
            self.core.finish(number, Status(code=error.code, message=error.message))
            return
        call = self._calls[number] = _Call(self, number, request, method.request)
        call.task = asyncio.create_task(self._serve(number, call, method, request.timeout))
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)

    def _method(self, request: Request) -> rpc.Method[Any, Any]:
        if len(self._calls) >= _MOST_CALLS:
            raise RpcError(Code.RESOURCE_EXHAUSTED, "too many calls at a time")
        method = self._services.find(request.path, request.metadata)
        if method is None:
            service, _, name = request.path.removeprefix("/").rpartition("/")
            raise RpcError(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}")
        return method

    async def _serve(self, number: int, call: _Call, method: rpc.Method[Any, Any], timeout: float | None) -> None:
        try:
            self.core.finish(number, await _outcome(call, method, timeout))
            self.wake()
        finally:
            del self._calls[number]


async def _outcome(call: _Call, method: rpc.Method[Any, Any], timeout: float | None) -> Status:
    try:
        async with asyncio.timeout(timeout):
            await method.handler(call)
        return OK
    except TimeoutError:
        return Status(code=Code.DEADLINE_EXCEEDED, message="context deadline exceeded")
    except Exception as error:
        from buildengine.api.status import to_rpc  # only a failure needs it

        told = to_rpc(error)
        return Status(code=told.code, message=told.message, details=told.details)
