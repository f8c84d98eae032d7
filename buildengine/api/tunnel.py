"""A byte stream inside the messages of one `Control.Session` call: the way to a client's session services.

The client of the outer call runs an HTTP/2 server on it, we are the HTTP/2 client (BuildKit session/grpchijack).
"""

from __future__ import annotations

import trio

from buildengine.api.control_pb2 import BytesMessage
from buildengine.api.rpc import RpcError, ServerCall

CHUNK = 64 << 10  # bytes of one message of ours; any size may come


class Tunnel(trio.abc.Stream):
    """`trio.abc.Stream` over a call that is being served, which ends when its handler returns."""

    def __init__(self, call: ServerCall[BytesMessage, BytesMessage]) -> None:
        self._call = call
        self._rest = memoryview(b"")
        self._closed = False
        self.ended = trio.Event()  # the client will not say any more

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        await trio.lowlevel.checkpoint_if_cancelled()
        while view:
            self._check_open()
            try:
                await self._call.send(BytesMessage(data=bytes(view[:CHUNK])))
            except RpcError as error:
                raise trio.BrokenResourceError(str(error)) from error
            view = view[CHUNK:]

    async def wait_send_all_might_not_block(self) -> None:
        """What a call takes without waiting is not known: it always might not block."""
        await trio.lowlevel.checkpoint()
        self._check_open()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """b"" once the client has half-closed the call."""
        self._check_open()
        while not self._rest:
            try:
                messages = await self._call.receive_many()
            except RpcError as error:
                self.ended.set()
                raise trio.BrokenResourceError(str(error)) from error
            self._check_open()
            if not messages:
                self.ended.set()
                return b""
            self._rest = memoryview(b"".join([message.data for message in messages]))
        taken = self._rest[:max_bytes]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
