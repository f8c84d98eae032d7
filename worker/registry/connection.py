"""HTTP/1.1 with one server on a trio stream: a request, its response, and so on (RFC 9112).

h11 writes and reads heads, and reads chunked bodies, which is where the traps are; a body of known length goes past
it, straight from the socket into the reader's buffer. There is one h11 machine for each request.

Every wait is bounded. Whatever goes wrong on the way raises one of `FAILURES`; nothing here knows what for a request
is made, nor how to tell people that it failed.
"""

from __future__ import annotations

import base64
import os
import select
import ssl
from collections.abc import AsyncIterator
from functools import partial

import h11
import trio

from buildengine.values import dataclass
from worker.registry.sendfile import send_file
from worker.registry.transport import FileBody

FAILURES = (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, OSError)
_CONNECT_TIMEOUT = 15.0
_IDLE_TIMEOUT = 60.0
_READ = 64 << 10
_MAX_HEAD = 100 << 10
_NO_BODY = (204, 304)
_READY_WITHIN = 1  # ms: less than a hop to the event loop and back costs while that is busy

Stream = trio.abc.Stream
Headers = tuple[tuple[bytes, bytes], ...]
Content = bytes | AsyncIterator[bytes] | FileBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whom a connection reaches at its far end."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy, and what it wants to see of us: the value of its `proxy-authorization`, or nothing."""

    origin: Origin
    authorization: bytes = b""

    @classmethod
    def basic(cls, origin: Origin, user: str, password: str) -> Proxy:
        return cls(origin=origin, authorization=b"Basic " + base64.b64encode(f"{user}:{password}".encode()))

    @property
    def headers(self) -> Headers:
        return ((b"proxy-authorization", self.authorization),) if self.authorization else ()


class NoTunnel(OSError):
    """A proxy would not let us through."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(0, f"the proxy answers {status} {reason}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """`content` has as many bytes as the headers say; `patience` are the seconds in which the answer has to begin."""

    method: str
    target: str
    headers: Headers
    content: Content = b""
    patience: float = _IDLE_TIMEOUT


async def connect(origin: Origin, *, tls: ssl.SSLContext | None, proxy: Proxy | None) -> Connection:
    """A connection to `origin`. Requests of plain HTTP go to a proxy as they are; for TLS it opens a tunnel."""
    nearest = proxy.origin if proxy else origin
    with trio.fail_after(_CONNECT_TIMEOUT):
        stream: Stream = await trio.open_tcp_stream(nearest.host, nearest.port)
    try:
        with trio.fail_after(_CONNECT_TIMEOUT):
            if proxy and proxy.origin.scheme == "https":
                stream = await _encrypted(stream, ssl.create_default_context(), proxy.origin.host)
            if proxy and tls:
                await _tunnel(stream, proxy, origin)
            if tls:
                stream = await _encrypted(stream, tls, origin.host)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return Connection(stream)


async def _encrypted(stream: Stream, context: ssl.SSLContext, host: str) -> Stream:
    encrypted = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    await encrypted.do_handshake()
    return encrypted


async def _tunnel(stream: Stream, proxy: Proxy, origin: Origin) -> None:
    headers = ((b"host", origin.authority.encode()), *proxy.headers)
    request = HttpRequest(method="CONNECT", target=origin.authority, headers=headers, patience=_CONNECT_TIMEOUT)
    head = await Connection(stream).exchange(request)
    if not 200 <= head.status_code < 300:
        raise NoTunnel(head.status_code, head.reason.decode("latin-1"))


class Connection:
    """One connection. `fill` and `take_ready` give the body of the response that came last."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._socket = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else -1
        self._machine = h11.Connection(h11.CLIENT)
        self._ahead = b""  # what was received and not asked for yet
        self._left: int | None = 0  # of the body; None: h11 will know when it ends
        self._keeps_alive = False

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow: all of the last one was sent, and all of its response read."""
        return self._keeps_alive and self._left == 0 and not self._ahead

    @property
    def is_stale(self) -> bool:
        """Whether the server has hung up, or said something unasked, while nothing was going on."""
        below = self._stream
        while isinstance(below, trio.SSLStream):
            below = below.transport_stream
        assert isinstance(below, trio.SocketStream)
        return _is_readable(below.socket.fileno(), 0)

    async def exchange(self, request: HttpRequest) -> h11.Response:
        """Send a request and return the head of its response."""
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._keeps_alive = False
        refused: Exception | None = None
        try:
            await self._send(request)
        except (trio.BrokenResourceError, OSError) as error:
            refused = error  # it may have answered before it hung up
        try:
            with trio.fail_after(request.patience):
                head = await self._head()
        except FAILURES:
            if refused is None:
                raise
        else:
            self._frame(request.method, head)
            self._keeps_alive = refused is None and head.http_version == b"1.1" and not _says_close(head)
            return head
        raise refused

    async def _send(self, request: HttpRequest) -> None:
        head = h11.Request(method=request.method, target=request.target, headers=list(request.headers))
        data = self._machine.send(head) or b""
        if isinstance(request.content, bytes):
            await self._send_all(data + request.content)
            return
        await self._send_all(data)
        if isinstance(request.content, FileBody):
            await self._send_file(request.content)
            return
        async for piece in request.content:
            await self._send_all(self._machine.send(h11.Data(data=piece)) or b"")
        self._machine.send(h11.EndOfMessage())  # raises when there was less than was promised

    async def _send_all(self, data: bytes) -> None:
        with trio.fail_after(_IDLE_TIMEOUT):
            await self._stream.send_all(data)

    async def _send_file(self, body: FileBody) -> None:
        position = body.offset

        def on_sent(count: int) -> None:
            nonlocal position
            position += count
            body.on_sent(position)

        step = partial(trio.fail_after, _IDLE_TIMEOUT)
        await send_file(self._stream, body.file, body.offset, body.size, step=step, on_sent=on_sent)

    async def _head(self) -> h11.Response:
        while not isinstance(event := await self._event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise trio.BrokenResourceError
        return event

    async def _event(self) -> object:
        while (event := self._machine.next_event()) is h11.NEED_DATA:
            self._machine.receive_data(bytes(await self._stream.receive_some(_READ)))
        return event

    def _frame(self, method: str, head: h11.Response) -> None:
        """Where the body ends (RFC 9112, 6.3). What of it has come already is `_ahead`."""
        lengths = {name: value for name, value in head.headers if name in (b"content-length", b"transfer-encoding")}
        if method in ("HEAD", "CONNECT") or head.status_code in _NO_BODY:
            self._left = 0
        elif b"transfer-encoding" in lengths or b"content-length" not in lengths:
            self._left = None
        else:
            self._left = int(lengths[b"content-length"])
        self._ahead = b"" if self._left is None else self._machine.trailing_data[0]

    async def fill(self, buffer: memoryview) -> int:
        """At least one byte of the body into `buffer`; 0 at its end. What ends too early raises."""
        if self._left is None:
            return await self._fill_with_machine(buffer)
        wanted = buffer[: self._left]
        if not wanted:
            return 0
        count = self._take_ahead(wanted) if self._ahead else await self._receive(wanted)
        if not count:
            raise trio.BrokenResourceError
        self._left -= count
        return count

    def take_ready(self, buffer: memoryview) -> int:
        """As `fill`, of what is there or about to arrive; else 0, whatever the reason. To be called in a thread."""
        wanted = buffer[: self._left or 0]
        if not wanted or self._ahead or self._socket < 0 or not _is_readable(self._socket, _READY_WITHIN):
            return 0
        try:
            count = os.readv(self._socket, [wanted])
        except OSError:
            return 0  # the next `fill` finds the end of the stream
        self._left = (self._left or 0) - count
        return count

    async def _fill_with_machine(self, buffer: memoryview) -> int:
        while not self._ahead:
            with trio.fail_after(_IDLE_TIMEOUT):
                event = await self._event()
            if not isinstance(event, h11.Data):
                self._left, self._ahead = 0, self._machine.trailing_data[0]
                return 0
            self._ahead = bytes(event.data)
        return self._take_ahead(buffer)

    def _take_ahead(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._ahead))
        buffer[:count], self._ahead = self._ahead[:count], self._ahead[count:]
        return count

    async def _receive(self, buffer: memoryview) -> int:
        with trio.fail_after(_IDLE_TIMEOUT):
            if isinstance(self._stream, trio.SocketStream):
                return await self._stream.socket.recv_into(buffer)
            data = await self._stream.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


def _is_readable(socket: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _says_close(head: h11.Response) -> bool:
    connection = b",".join(value for name, value in head.headers if name == b"connection")
    return b"close" in (token.strip().lower() for token in connection.split(b","))
