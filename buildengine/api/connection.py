"""Calls on a byte stream, in trio: `serve_connection` answers them, `open_channel` makes them.

One task reads, one writes, one runs for each call that is served; none outlives its block. When the stream breaks,
every call on it ends: CANCELLED for those that are served, UNAVAILABLE for those that wait for an answer. The stream
belongs to the caller, who closes it; it is good for nothing else afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any, TypeVar

import trio
from google.protobuf.message import Message

from buildengine import __version__
from buildengine.api import rpc
from buildengine.api.calls import HIGH_WATER, InboundCall, OutboundCall
from buildengine.api.h2settings import MAX_CALLS
from buildengine.api.headers import OK, Status
from buildengine.api.http2 import Core
from buildengine.api.rpc import Code, Metadata, RpcError
from buildengine.api.streams import (
    AnswerBegun,
    Broken,
    CallEnded,
    CallOpened,
    Event,
    GoingAway,
    HalfClosed,
    MessagesReceived,
)
from buildengine.errors import BuildError, leading

RECEIVE = 256 << 10  # bytes of one read
MAX_SERVED = 256 << 20  # bytes of the requests of one connection that are being served
FAREWELL = 1.0  # seconds for the last frame: why we close
# Seconds without a sign of the other side before it is asked for one, and for its answer; those of grpc-go's servers
# (internal/transport/defaults.go). TCP finds out sooner about a host that has gone, where there is TCP.
SILENCE, ANSWER = 2 * 3600.0, 20.0

_In = TypeVar("_In", bound=Message)
_Out = TypeVar("_Out", bound=Message)
_TOLD = (RpcError, BuildError, Exception)  # of tasks that failed together, who says whose fault it is comes first
Describe = Callable[[BaseException], RpcError]


def describe(error: BaseException) -> RpcError:
    """The status of what a handler raised, without details."""
    if isinstance(error, RpcError):
        return error
    if isinstance(error, BuildError):
        return RpcError(Code(error.grpc_code), error.message)
    return RpcError(Code.INTERNAL, f"{type(error).__name__}: {error}")


class Closing:
    """How a server ends all of its connections. Each is closed with its last call."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.begun = trio.Event()  # no more calls are taken
        self.over = trio.Event()  # those that still run end as UNAVAILABLE, for `reason`


async def serve_connection(
    stream: trio.abc.Stream, services: rpc.Services, *, describe: Describe = describe, closing: Closing | None = None
) -> str:
    """Until the other side closes, breaks the protocol or is not there any more, or we are `closing`: how it ended.

    Raises nothing: what goes wrong is a call's status. `describe` makes one of whatever a handler raises.
    """
    server = _Server(stream, services, describe, closing or Closing(""))
    await server.run()
    return server.closed


@asynccontextmanager
async def open_channel(stream: trio.abc.Stream) -> AsyncIterator[rpc.Channel]:
    """Calls raise RpcError(UNAVAILABLE) once the stream has broken; the block itself goes on."""
    client = _Client(stream)
    caught: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            try:
                yield client
            except BaseException as error:  # it leaves the block as it is, not in a group
                caught = error
            nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        raise leading(group, *_TOLD) from None
    if caught is not None:
        raise caught


class _Connection(ABC):
    """What both roles have in common: the two tasks of the stream, and who waits for them."""

    def __init__(self, stream: trio.abc.Stream, core: Core) -> None:
        self.core = core
        self._stream = stream
        self._calls: dict[int, Any] = {}
        self._wanted = trio.Event()
        self._written = trio.lowlevel.ParkingLot()
        self._all_written = True
        self._unheard = False  # the stream takes nothing more
        self._draining: dict[int, trio.Event] = {}
        self._heard = trio.current_time()
        self.closed = ""  # why, once it is

    async def run(self) -> None:
        try:
            await self._run()
        except BaseExceptionGroup as group:  # a mistake of ours, or that we are cancelled
            raise leading(group, *_TOLD) from None

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._write)
                self._begin()
                await self._read()
                self._end()
                with trio.move_on_after(FAREWELL):  # who will say no more may still listen
                    while not self._all_written:
                        await self._written.park()
            finally:
                self._end()
                nursery.cancel_scope.cancel()

    def wake(self) -> None:
        if self.core.wants_output and not self._unheard:
            self._all_written = False
            self._wanted.set()

    async def drained(self, number: int) -> None:
        await self._draining.setdefault(number, trio.Event()).wait()

    async def _read(self) -> None:
        try:
            while not self.core.broken:
                data = await self._stream.receive_some(RECEIVE)
                if not data:
                    return
                self._heard = trio.current_time()
                for event in self.core.receive(bytes(data)):
                    self._handle(event)
                self._has_received()
                self.wake()
                while self.core.flooded and not self.closed:
                    await self._written.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _write(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                while data := self.core.output():
                    await self._stream.send_all(data)
                    self._has_written()
                self._all_written = True
                self._written.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._unheard = self._all_written = True
            self._written.unpark_all()
            # What the other side has sent before it went may still be read.
            self._nursery.cancel_scope.deadline = trio.current_time() + FAREWELL

    @abstractmethod
    def _begin(self) -> None:
        """The tasks that only one of the roles has."""

    @abstractmethod
    def _has_received(self) -> None:
        """What the other side has told may be what somebody waits for."""

    def _has_written(self) -> None:
        self._written.unpark_all()
        for number in [number for number in self._draining if self.core.pending(number) <= HIGH_WATER]:
            self._draining.pop(number).set()

    def _handle(self, event: Event) -> None:
        match event:
            case MessagesReceived(stream=number, messages=messages):
                if (call := self._calls.get(number)) is not None:
                    call.arrived(messages)
            case HalfClosed(stream=number):
                if (call := self._calls.get(number)) is not None:
                    call.half_closed()
            case CallEnded(stream=number, status=status):
                self._call_ended(number, status)
            case _:
                self._handle_more(event)

    @abstractmethod
    def _handle_more(self, event: Event) -> None:
        """What only one of the roles hears."""

    def _call_ended(self, number: int, status: Status) -> None:
        if (call := self._calls.get(number)) is not None:
            call.ended(status)
        if number in self._draining:
            self._draining.pop(number).set()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = self.core.broken or "the connection was closed"
        for number in {*self._calls, *self._draining}:
            self._call_ended(number, Status(code=Code.UNAVAILABLE, message=self.closed))
        self._written.unpark_all()


class _Server(_Connection):
    def __init__(self, stream: trio.abc.Stream, services: rpc.Services, describe: Describe, closing: Closing) -> None:
        super().__init__(stream, Core(client=False))
        self._services = services
        self._describe = describe
        self._closing = closing
        self._held = 0  # bytes of the requests that are being served
        self.wake()

    def hold(self, size: int) -> None:
        if self._held + size > MAX_SERVED:
            raise RpcError(Code.RESOURCE_EXHAUSTED, "too many large requests at a time")
        self._held += size

    def _begin(self) -> None:
        self._nursery.start_soon(self._keep_alive)
        self._nursery.start_soon(self._leave)
        self._nursery.start_soon(self._stop_calls)

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep_until(self._heard + SILENCE)
            asked = trio.current_time()
            if self._heard + SILENCE <= asked:
                self.core.ping()
                self.wake()
                await trio.sleep(ANSWER)
                if self._heard < asked:
                    self._nursery.cancel_scope.cancel()

    async def _leave(self) -> None:
        await self._closing.begun.wait()
        self.core.go_away()
        self.wake()
        while self._calls or not self._all_written:
            await self._written.park()
        self._nursery.cancel_scope.cancel()

    async def _stop_calls(self) -> None:
        await self._closing.over.wait()
        for call in self._calls.values():
            call.stop()

    def _handle_more(self, event: Event) -> None:
        if not isinstance(event, CallOpened):
            return
        path = event.request.path
        method = self._services.get(path)
        if len(self._calls) >= MAX_CALLS:  # also those whose callers have gone and that have not ended yet
            self.core.finish(event.stream, Status(code=Code.RESOURCE_EXHAUSTED, message="too many calls at a time"))
        elif method is None:
            self.core.finish(event.stream, Status(code=Code.UNIMPLEMENTED, message=self._unknown(path)))
        else:
            call = self._calls[event.stream] = InboundCall(self, event.stream, event.request, method.request)
            self._nursery.start_soon(self._serve, event.stream, call, method, event.request.timeout)

    def _has_received(self) -> None:
        """Nobody waits: its calls are the other side's to begin."""

    def _unknown(self, path: str) -> str:
        service, _, method = path.removeprefix("/").rpartition("/")
        if any(known.startswith(f"/{service}/") for known in self._services):
            return f"unknown method {method} for service {service}"
        return f"unknown service {service}"

    async def _serve(self, number: int, call: InboundCall, method: rpc.Method[Any, Any], timeout: float | None) -> None:
        try:
            call.scope.deadline = trio.current_time() + (inf if timeout is None else timeout)
            self.core.finish(number, await self._outcome(call, method))
            self.wake()
        finally:
            del self._calls[number]
            self._held -= call.held
            self._written.unpark_all()

    async def _outcome(self, call: InboundCall, method: rpc.Method[Any, Any]) -> Status:
        try:
            with call.scope:
                await method.handler(call)
                return OK
        except Exception as error:
            told = self._describe(leading(error, *_TOLD))
            return Status(code=told.code, message=told.message, details=told.details)
        except BaseExceptionGroup as group:  # tasks of it failed as we were cancelled: nobody is there to be told
            raise group.split(Exception)[1] or group from None
        if call.stopped:
            return Status(code=Code.UNAVAILABLE, message=self._closing.reason)
        return Status(code=Code.DEADLINE_EXCEEDED, message="context deadline exceeded")


class _Client(_Connection):
    """An `rpc.Channel`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream, Core(client=True, agent=f"pybuild/{__version__}"))
        self._openers = trio.lowlevel.ParkingLot()
        self.wake()

    def _begin(self) -> None:
        """A client that waits for no answer needs no other side."""

    async def unary(
        self,
        path: str,
        request: Message,
        response: type[_Out],
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> _Out:
        with trio.move_on_after(inf if timeout is None else timeout):
            async with self._call(path, response, metadata, timeout) as call:
                await call.send(request)
                await call.half_close()
                answer: _Out | None = await call.receive()
                if answer is None or await call.receive() is not None:
                    raise RpcError(Code.INTERNAL, f"{path}: the answer is not one message")
                return answer
        raise RpcError(Code.DEADLINE_EXCEEDED, f"{path}: no answer within {timeout:g} seconds")

    @asynccontextmanager
    async def stream(
        self, path: str, request: type[_In], response: type[_Out], *, metadata: Metadata = ()
    ) -> AsyncIterator[rpc.ClientCall[_In, _Out]]:
        async with self._call(path, response, metadata, None) as call:
            yield call

    @asynccontextmanager
    async def _call(
        self, path: str, response: type[Message], metadata: Metadata, timeout: float | None
    ) -> AsyncIterator[OutboundCall]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._unavailable() and not self.core.can_open:
            await self._openers.park()
        if self._unavailable():
            raise RpcError(Code.UNAVAILABLE, self._unavailable())
        number = self.core.open(path, metadata, timeout)
        call = self._calls[number] = OutboundCall(self, number, response)
        self.wake()
        try:
            yield call
        finally:
            del self._calls[number]
            self.core.reset(number)
            self._openers.unpark()
            self.wake()

    def _unavailable(self) -> str:
        return self.closed or self.core.broken or self.core.going_away

    def _handle_more(self, event: Event) -> None:
        if isinstance(event, AnswerBegun) and (call := self._calls.get(event.stream)) is not None:
            call.begun(event.metadata, event.encoding)
        elif isinstance(event, GoingAway | Broken):
            self._openers.unpark_all()

    def _has_received(self) -> None:
        if self._openers and self.core.can_open:
            self._openers.unpark_all()

    def _end(self) -> None:
        super()._end()
        self._openers.unpark_all()
