"""Calls to a daemon through grpcio: messages come, and what goes wrong is an `RpcError`, with its details."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from buildengine.api import statusbytes
from buildengine.api.rpc import Code, Detail, Metadata, RpcError

if TYPE_CHECKING:
    import grpc.aio

_Out = TypeVar("_Out", bound=Message)
_T = TypeVar("_T")
_DETAILS = "grpc-status-details-bin"
_WRITE_FAILED = "Internal error from Core"  # grpcio's words
_STATUS_SECONDS = 10  # a status follows at once where a write fails


class Connection:
    """A daemon that can be called. `name` is its address, for people. Made by `buildengine.client.connect.connect`."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._channel = channel
        self.name = name

    async def unary(self, path: str, request: Message, response: type[_Out], metadata: Metadata = ()) -> _Out:
        """Raises RpcError."""
        call = self._channel.unary_unary(path, _serialized, response.FromString)(request, metadata=metadata)
        with _told():
            answer: _Out = await call
            return answer

    async def server_stream(self, path: str, request: Message, response: type[_Out]) -> AsyncGenerator[_Out, None]:
        """Raises RpcError. The call is cancelled when the iteration is left: use it with `contextlib.aclosing`."""
        call = self._channel.unary_stream(path, _serialized, response.FromString)(request)
        try:
            with _told():
                async for message in call:
                    yield message
        finally:
            call.cancel()

    @asynccontextmanager
    async def stream(self, path: str, response: type[_Out], metadata: Metadata = ()) -> AsyncIterator[Stream[_Out]]:
        """A call with streams both ways, cancelled at the end of the block."""
        call = self._channel.stream_stream(path, _serialized, response.FromString)(metadata=metadata)
        try:
            yield Stream(call)
        finally:
            call.cancel()


class Stream(Generic[_Out]):
    """A call with streams both ways: one task may send while another one receives."""

    def __init__(self, call: grpc.aio.StreamStreamCall) -> None:
        self._call = call
        self._ended: asyncio.Future[RpcError] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._take_status)

    def _take_status(self, call: grpc.aio.StreamStreamCall) -> None:
        """When a write fails grpcio puts an INTERNAL of its own in the place of the status that has come."""
        code, details, metadata = _at_once(call.code()), _at_once(call.details()), _at_once(call.trailing_metadata())
        if not self._ended.done() and details != _WRITE_FAILED:
            self._ended.set_result(RpcError(Code(code.value[0]), details or "", _details(metadata)))

    async def send(self, message: Message) -> None:
        """Raises RpcError: what the call ended with, CANCELLED when that was OK."""
        import grpc.aio

        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._end() from None

    async def half_close(self) -> None:
        """No message of ours will follow. Raises RpcError as `send`."""
        import grpc.aio

        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._end() from None

    async def receive(self) -> _Out | None:
        """None at the end. Raises RpcError."""
        import grpc.aio

        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError:
            raise await self._end() from None
        return None if message is grpc.aio.EOF else message

    async def _end(self) -> RpcError:
        try:
            error = await asyncio.wait_for(asyncio.shield(self._ended), _STATUS_SECONDS)
        except TimeoutError:
            return RpcError(Code.UNAVAILABLE, "the connection broke, and no status came")
        if error.code is Code.OK:
            return RpcError(Code.CANCELLED, "the other side has ended the call with OK")
        return error


def _at_once(answer: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine gives that has nothing to wait for."""
    try:
        answer.send(None)
    except StopIteration as end:
        return cast(_T, end.value)
    raise AssertionError("it waits")


@contextmanager
def _told() -> Iterator[None]:
    """grpcio's error as ours."""
    import grpc.aio

    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _rpc_error(error) from None


def _rpc_error(error: grpc.aio.AioRpcError) -> RpcError:
    return RpcError(Code(error.code().value[0]), error.details() or "", _details(error.trailing_metadata()))


def _details(metadata: Iterable[tuple[str, bytes]] | None) -> tuple[Detail, ...]:
    status = next((value for key, value in metadata or () if key == _DETAILS), b"")
    if not status:
        return ()
    try:
        return statusbytes.decode(status).details
    except (DecodeError, ValueError):
        return ()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
