"""A small HTTP/1.1 server on loopback, in the test's own trio run: a handler answers, everything is recorded.

    async with serve(lambda request: Reply(body=b"hello")) as server:
        ... server.url ... server.requests

It can also misbehave: cut a body short, lie about its length.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h11
import trio


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def target(self) -> str:
        return self.path + (f"?{self.query}" if self.query else "")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`cut` closes the connection after so many bytes of the body; `length` is announced instead of the true one."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    length: int | str | None = None


Handler = Callable[[Request], Reply | Awaitable[Reply]]


class Server:
    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.host = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def seen(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    async def connection(self, stream: trio.SocketStream) -> None:
        machine = h11.Connection(h11.SERVER)
        try:
            async with stream:
                while await self._exchange(stream, machine):
                    machine.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass

    async def _exchange(self, stream: trio.SocketStream, machine: h11.Connection) -> bool:
        request = await _receive(stream, machine)
        if request is None:
            return False
        self.requests.append(request)
        reply = self.handler(request)
        if not isinstance(reply, Reply):
            reply = await reply
        body = b"" if request.method == "HEAD" or reply.status in (204, 304) else reply.body
        length = len(reply.body) if reply.length is None else reply.length
        headers = [("content-length", str(length)), *reply.headers.items()]
        if reply.cut is not None or reply.length is not None:
            # By hand: h11 refuses to break its promises.
            head = "".join(f"{name}: {value}\r\n" for name, value in headers)
            await stream.send_all(f"HTTP/1.1 {reply.status} Whatever\r\n{head}\r\n".encode() + body[: reply.cut])
            return False
        await stream.send_all(machine.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
        if body:
            await stream.send_all(machine.send(h11.Data(data=body)) or b"")
        await stream.send_all(machine.send(h11.EndOfMessage()) or b"")
        return machine.our_state is h11.DONE and machine.their_state is h11.DONE


async def _receive(stream: trio.SocketStream, machine: h11.Connection) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            machine.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            path, _, query = head.target.decode().partition("?")
            headers = {name.decode(): value.decode() for name, value in head.headers}
            return Request(method=head.method.decode(), path=path, query=query, headers=headers, body=body)
        else:
            return None


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[Server]:
    server = Server(handler)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.connection, 0, host="127.0.0.1"))
        server.host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()
