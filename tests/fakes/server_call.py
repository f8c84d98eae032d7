"""One call as a servicer of the client holds it, without a transport: an `rpc.ServerCall` of messages that are there.

call = ServedCall(request, metadata=(("urlpath", "/x"),))
asyncio.run(serve(services, "/moby.upload.v1.Upload/Pull", call))
assert call.sent == [...]
"""

from __future__ import annotations

from collections import deque
from typing import Any

from google.protobuf.message import Message

from buildengine.api import rpc
from buildengine.api.rpc import Metadata


class ServedCall:
    """After `messages` the caller has half-closed."""

    path = "/test"

    def __init__(self, *messages: Message, metadata: Metadata = ()) -> None:
        self.metadata = metadata
        self.sent: list[Any] = []
        self._waiting = deque(messages)

    async def send_initial_metadata(self, metadata: Metadata) -> None: ...

    async def receive(self) -> Any:
        return self._waiting.popleft() if self._waiting else None

    async def receive_many(self) -> list[Any]:
        message = await self.receive()
        return [] if message is None else [message]

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def serve(services: rpc.Services, path: str, call: ServedCall) -> None:
    await services[path].handler(call)
