"""HTTP/1.1 with one client on a trio stream: a request, its body, one answer, and so on (RFC 9112).

h11 reads heads and chunked bodies, which is where the traps are; a body of known length goes past it, straight from
the socket into the reader's buffer. There is one h11 machine for each request, so what a client sends ahead waits in
`_ahead` for its turn. What could be understood in two ways (a length and a transfer coding at once, two lengths, a
coding that is not chunked) is refused, and the connection ends.

Every wait is bounded: a head, and each buffer of a body, has to come within `Limits`. Must not know what a registry is.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

import h11
import trio

from buildengine.values import dataclass
from cache.diskerrors import explained
from worker.registry.sendfile import send_file
from worker.registry.server.answers import Answer, Code, FilePart, Refusal

_READ = 64 << 10
_LINGER_SECONDS = 2.0
_NO_BODY = (204, 304)
_TOO_LONG = {431: "the head of the request is too long", 501: "this transfer coding is not supported"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds and bytes. `step`: to take or give the next buffer, of up to 1 MiB. `idle`: between two requests."""

    head_bytes: int = 64 << 10
    head: float = 20.0
    idle: float = 120.0
    step: float = 120.0
    unread: int = 1 << 20  # of a body that nobody wanted, to keep the connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A head. `headers` are by lower-case name, several of one name joined by commas. `length` None: chunked."""

    method: str
    target: str
    headers: Mapping[str, str]
    length: int | None = 0


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Interrupted(Exception):
    """The body did not come whole, and no answer can reach anybody, or none but that it took too long."""


class Wire:
    """One connection. `body` is that of the request that came last; `status` (0: not begun) and `sent` its answer's."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._machine = h11.Connection(h11.SERVER)
        self._ahead = b""
        self._keeps_alive = True
        self.body = Body(self, length=0, expects=False)
        self.status = 0
        self.sent = 0

    async def request(self) -> Request | None:
        """The next request; None when the client has gone, or has nothing to say. Raises Refusal for nonsense."""
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        self.body, self.status, self.sent = Body(self, length=0, expects=False), 0, 0
        if not self._ahead:
            with trio.move_on_after(self._limits.idle):
                self._ahead = await self._receive(self._limits.head_bytes)
        if not self._ahead:
            return None
        with trio.move_on_after(self._limits.head):
            event = await self._head()
            return None if event is None else self._understood(event)
        raise Refusal(Code.UNSUPPORTED, "the request took too long", status=408, close=True)

    async def answer(self, request: Request | None, answer: Answer) -> bool:
        """Send it; whether another request may follow. Raises StoreError when its file cannot be read."""
        unwanted = not await self._read_rest()
        close = answer.close or unwanted or not self._keeps_alive or request is None
        is_bare = answer.status in _NO_BODY or (request is not None and request.method == "HEAD")
        with contextlib.ExitStack() as stack:
            body = answer.body
            if isinstance(body, FilePart):
                opened = _opened(body.path)
                if opened is None:  # deleted since we looked
                    return await self.answer(request, Refusal(Code.BLOB_UNKNOWN, "the blob was deleted").answer)
                file = stack.enter_context(opened)
            head = self._composed(answer, close)
            self.status = answer.status
            with self._bounded():
                await self._stream.send_all(head if is_bare or isinstance(body, FilePart) else head + body)
            if not is_bare and isinstance(body, FilePart):
                try:
                    await send_file(
                        self._stream,
                        file.fileno(),
                        body.offset,
                        body.length,
                        step=self._bounded,
                        on_sent=self._count,
                    )
                except OSError as error:
                    raise Interrupted from error
            elif not is_bare:
                self._count(answer.length)
        if close:
            await self._linger()
        return not close

    def _understood(self, event: h11.Request) -> Request:
        if not event.http_version.startswith(b"1."):
            raise Refusal(Code.UNSUPPORTED, "this server speaks HTTP/1.1", status=505, close=True)
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and (length is not None or event.http_version != b"1.1"):
            self._keeps_alive = False
            message = "a request has a length or, in HTTP/1.1 only, a transfer coding; not both"
            raise Refusal(Code.UNSUPPORTED, message, status=400, close=True)
        tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
        self._keeps_alive = event.http_version == b"1.1" and "close" not in tokens
        size = None if coding is not None else int(length or 0)
        if size is not None:
            self._ahead = self._machine.trailing_data[0]
        expects = headers.get("expect", "").lower() == "100-continue" and size != 0
        self.body = Body(self, length=size, expects=expects)
        target = event.target.decode("ascii")
        if "://" in target and not target.startswith("/"):  # RFC 9112, 3.2.2: accepted, though no client sends it
            target = "/" + target.partition("://")[2].partition("/")[2]
        return Request(method=event.method.decode("ascii"), target=target, headers=headers, length=size)

    async def _head(self) -> h11.Request | None:
        data, self._ahead = self._ahead, b""
        left = self._limits.head_bytes
        try:
            while True:
                self._machine.receive_data(data)
                event = self._machine.next_event()
                if isinstance(event, h11.Request):
                    return event
                left -= len(data)
                if event is not h11.NEED_DATA:
                    return None
                if left <= 0:
                    raise h11.RemoteProtocolError("too long", error_status_hint=431)
                data = await self._receive(left)
        except h11.RemoteProtocolError as error:
            self._keeps_alive = False
            status = error.error_status_hint
            message = _TOO_LONG.get(status, f"this is no HTTP request: {error}")
            raise Refusal(Code.UNSUPPORTED, message, status=status, close=True) from error

    def _composed(self, answer: Answer, close: bool) -> bytes:
        headers = [*answer.headers, ("Docker-Distribution-API-Version", "registry/2.0"), ("Date", _date())]
        names = {name.lower() for name, _ in headers}
        if answer.status not in _NO_BODY and "content-length" not in names:
            headers.append(("Content-Length", str(answer.length)))
        if close:
            headers.append(("Connection", "close"))
        lines = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers)
        return f"HTTP/1.1 {answer.status} {_reason(answer.status)}\r\n{lines}\r\n".encode("latin-1", "replace")

    async def _read_rest(self) -> bool:
        """Take what is left of a body that nobody wanted, when it is little; whether all of it is here."""
        body = self.body
        if body.failure is not None or body.expects:
            return body.is_done
        buffer = memoryview(bytearray(_READ))
        left = self._limits.unread
        with trio.move_on_after(_LINGER_SECONDS):
            while not body.is_done and left > 0 and body.failure is None:
                left -= await body.fill(buffer)
        return body.is_done

    async def _linger(self) -> None:
        """Let the client read the answer although it is still sending: closed at once, TCP would take it away."""
        socket = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        with trio.move_on_after(_LINGER_SECONDS), contextlib.suppress(trio.BrokenResourceError, OSError):
            if isinstance(socket, trio.SocketStream):
                await socket.send_eof()
                while await socket.receive_some(_READ):
                    pass

    async def _receive(self, most: int = _READ) -> bytes:
        try:
            return bytes(await self._stream.receive_some(most))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Interrupted from None

    async def receive_into(self, view: memoryview) -> int:
        """At least one byte, or 0 at the end of the stream."""
        if self._ahead:
            count = min(len(view), len(self._ahead))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            return count
        if isinstance(self._stream, trio.SocketStream):
            try:
                return await self._stream.socket.recv_into(view)
            except OSError:
                return 0
        data = await self._receive()
        self._ahead = data[len(view) :]
        view[: len(data)] = data[: len(view)]
        return min(len(data), len(view))

    async def chunk(self) -> bytes | None:
        """The next bytes of a chunked body; None at its end."""
        while True:
            try:
                event = self._machine.next_event()
                if event is h11.NEED_DATA:
                    self._machine.receive_data(await self._receive())
                    continue
            except h11.RemoteProtocolError as error:
                raise Interrupted from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                raise Interrupted
            self._ahead = self._machine.trailing_data[0]
            return None

    async def go_on(self) -> None:
        with self._bounded():
            await self._stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Who does not take a buffer in time, or has gone, is Interrupted."""
        try:
            with trio.fail_after(self._limits.step):
                yield
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise Interrupted from error

    def _count(self, count: int) -> None:
        self.sent += count

    @property
    def step_seconds(self) -> float:
        return self._limits.step


class Body:
    """The body of one request. `fill` never raises: how it broke off is `failure`, after what had come."""

    def __init__(self, wire: Wire, *, length: int | None, expects: bool) -> None:
        self._wire = wire
        self._rest = memoryview(b"")
        self.length = length
        self.expects = expects
        self.received = 0
        self.is_done = length == 0
        self.failure: Exception | None = None

    async def fill(self, buffer: memoryview) -> int:
        """Fill the buffer, as far as the body goes; how many bytes came. Less than it holds: that was the last."""
        count = 0
        with trio.move_on_after(self._wire.step_seconds) as scope:
            try:
                if self.expects:
                    self.expects = False
                    await self._wire.go_on()
                while count < len(buffer) and not self.is_done and self.failure is None:
                    count += await self._some(buffer[count:])
            except Interrupted as error:
                self.failure = error
        if scope.cancelled_caught:
            self.failure = Refusal(Code.BLOB_UPLOAD_INVALID, "the body took too long", status=408, close=True)
        return count

    async def _some(self, view: memoryview) -> int:
        if self.length is None:
            return await self._some_of_chunk(view)
        count = await self._wire.receive_into(view[: self.length - self.received])
        if not count:
            raise Interrupted
        self.received += count
        self.is_done = self.received == self.length
        return count

    async def _some_of_chunk(self, view: memoryview) -> int:
        if not self._rest:
            data = await self._wire.chunk()
            if data is None:
                self.is_done = True
                return 0
            self._rest = memoryview(data)
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        self.received += count
        return count


def _opened(path: Path) -> io.FileIO | None:
    with explained("cannot read from the store"), contextlib.suppress(FileNotFoundError):
        return io.FileIO(path)
    return None


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


def _date() -> str:
    return formatdate(time.time(), usegmt=True)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
