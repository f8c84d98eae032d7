"""A call of one message each way, answered without HTTP/2: for whoever carries messages in another way."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError, Message

from buildengine.api import rpc
from buildengine.api.rpc import Code, Metadata, RpcError


async def answer(services: rpc.Services, path: str, request: bytes, metadata: Metadata = ()) -> bytes:
    """What the method `path` (`/package.Service/Method`) answers to a serialised request.

    Raises whatever the method does (`buildengine.api.status.to_rpc` makes a status of it), and RpcError for a method
    that is not served and for bytes that are no such message.
    """
    method = services.get(path)
    if method is None:
        raise RpcError(Code.UNIMPLEMENTED, f"unknown method {path}")
    try:
        message = method.request.FromString(request)
    except DecodeError as error:
        raise RpcError(Code.INTERNAL, f"{path}: the request is no {method.request.DESCRIPTOR.full_name}") from error
    call = _Call(path, message, metadata)
    await method.handler(call)
    if call.answered is None:
        raise RpcError(Code.INTERNAL, f"{path}: the answer is not one message")
    return call.answered


class _Call:
    """An `rpc.ServerCall` whose caller has said all that he has to say."""

    def __init__(self, path: str, request: Message, metadata: Metadata) -> None:
        self.path = path
        self.metadata = metadata
        self.answered: bytes | None = None
        self._request: Message | None = request

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Nobody looks at it."""

    async def receive(self) -> Any:
        request, self._request = self._request, None
        return request

    async def receive_many(self) -> list[Any]:
        request = await self.receive()
        return [] if request is None else [request]

    async def send(self, message: Message) -> None:
        if self.answered is not None:
            raise RpcError(Code.UNIMPLEMENTED, f"{self.path}: only one message can be answered here")
        self.answered = message.SerializeToString()
