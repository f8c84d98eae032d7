"""Calls to a daemon through grpcio: messages come, and what goes wrong is an `RpcError`, with its details."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from buildengine.api import statusbytes
from buildengine.api.rpc import Code, Detail, Metadata, RpcError

if TYPE_CHECKING:
    import grpc.aio

_Out = TypeVar("_Out", bound=Message)
_DETAILS = "grpc-status-details-bin"


class Connection:
    """A daemon that can be called. `name` is its address, for people. Made by `buildengine.client.connect.connect`."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._channel = channel
        self.name = name

    async def unary(self, path: str, request: Message, response: type[_Out]) -> _Out:
        """Raises RpcError."""
        call = self._channel.unary_unary(path, _serialized, response.FromString)(request)
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

    async def send(self, message: Message) -> None:
        """Raises RpcError: what the call ended with, CANCELLED when that was OK."""
        try:
            with _told():
                await self._call.write(message)
        except asyncio.InvalidStateError:
            raise await self._end() from None

    async def half_close(self) -> None:
        """No message of ours will follow. Raises RpcError as `send`."""
        try:
            with _told():
                await self._call.done_writing()
        except asyncio.InvalidStateError:
            raise await self._end() from None

    async def _end(self) -> RpcError:
        call = self._call
        code = Code((await call.code()).value[0])
        if code is Code.OK:
            return RpcError(Code.CANCELLED, "the other side has ended the call with OK")
        return RpcError(code, await call.details() or "", _details(await call.trailing_metadata()))

    async def receive(self) -> _Out | None:
        """None at the end. Raises RpcError."""
        import grpc.aio

        with _told():
            message = await self._call.read()
            return None if message is grpc.aio.EOF else message


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
