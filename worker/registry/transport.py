"""HTTP as registries and http sources need it: one request, its response as a stream, redirects followed safely.

`Transport` has few methods to learn: `send` opens a response, `Response.read` takes a small body whole,
`Response.chunks` streams a large one, `fill` and `take_ready` do so into the caller's own buffer. What is sent may be
a stream as well: one that can be opened again, since a request may have to be made twice. What does the work is
`worker.registry.http`; its import waits for the first request, since most commands contact nobody.

What a redirect may do is decided here once, for everybody: credentials stay with the scheme, host and port they
were meant for, https never becomes http, a loop ends after ten steps; what has a body goes to the same host or
nowhere. Bodies come as they were sent: content encodings are neither offered nor undone, since digests are taken
of these bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

import trio

from buildengine.errors import SourceError
from buildengine.values import dataclass
from worker.registry.hosts import Tls

if TYPE_CHECKING:
    from worker.registry.http import Pools

MAX_REDIRECTS = 10
_MAX_URL = 16 << 10
_PORTS = {"http": 80, "https": 443}
_FOLLOWED = frozenset({301, 302, 303, 307, 308})
_FOLLOWED_WITH_BODY = frozenset({307, 308})  # the others turn a request into a GET (RFC 9110 15.4)
# What another host may see of a request. Anything not named here might be a secret.
_HARMLESS = frozenset(
    ("accept", "accept-encoding", "if-modified-since", "if-none-match", "if-range", "range", "user-agent")
)


class Unreachable(SourceError):
    """No answer, or not all of it: refused, reset, timed out, cut off. Trying again may help."""

    grpc_code = 14  # UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedBody:
    """A body of `size` bytes. `open` starts it from its beginning, once for each time it is sent."""

    size: int
    open: Callable[[], AsyncGenerator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBody:
    """`size` bytes of an open file from `offset` on, which the kernel sends where it can.

    `on_sent` is called with the offset up to which they have gone.
    """

    file: int
    offset: int
    size: int
    on_sent: Callable[[int], object]


Body = bytes | StreamedBody | FileBody


class Response(Protocol):
    """An open response. `headers` has lower-case names, repeated ones joined by a comma; `url` is its own."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def url(self) -> str: ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises SourceError when it is longer than `limit`."""
        ...

    def chunks(self) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises Unreachable when it breaks off."""
        ...

    async def fill(self, buffer: memoryview) -> int:
        """The next bytes of the body, into `buffer`: at least one, 0 at its end. Raises Unreachable."""
        ...

    def take_ready(self, buffer: memoryview) -> int:
        """What `fill` would give without waiting; 0 when there is nothing yet. For threads that have the time."""
        ...


class Transport(Protocol):
    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Body = b""
    ) -> AbstractAsyncContextManager[Response]:
        """The response at the end of all redirects, whatever its status. Raises Unreachable, SourceError."""
        ...


class FollowingTransport:
    """`Transport` on pools of connections. Made by `open_transport`."""

    def __init__(self, tls: Callable[[str], Tls], proxy: Callable[[str, str], str]) -> None:
        self._tls = tls
        self._proxy = proxy
        self._opened: Pools | None = None

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Body = b""
    ) -> AsyncIterator[Response]:
        sent = {"accept-encoding": "identity", **headers}
        for _ in range(MAX_REDIRECTS + 1):
            async with self._pools().exchange(method, url, sent, content) as response:
                location = response.headers.get("location")
                if not location or not _is_followed(method, url, response.status, location):
                    yield response
                    return
                await response.drain()
            target = joined(url, location)
            sent = redirect_headers(sent, url, target)
            url = target
        raise SourceError(f"{redacted(url)}: more than {MAX_REDIRECTS} redirects")

    def _pools(self) -> Pools:
        if self._opened is None:
            from worker.registry.http import Pools

            self._opened = Pools(self._tls, self._proxy)
        return self._opened

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()


@asynccontextmanager
async def open_transport(
    tls: Callable[[str], Tls] = lambda host: Tls(), proxy: Callable[[str, str], str] = lambda scheme, host: ""
) -> AsyncIterator[FollowingTransport]:
    """A transport whose connections end with this block.

    `tls(host)` says how to treat a host (with port), `proxy(scheme, host)` through which proxy to reach it.
    """
    transport = FollowingTransport(tls, proxy)
    try:
        yield transport
    finally:
        with trio.CancelScope(shield=True):
            await transport.aclose()


def redacted(url: str) -> str:
    """`url` without what may be secret in it: user information and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an invalid URL"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"[:500] + ("?..." if parts.query else "")


def redirect_headers(headers: Mapping[str, str], source: str, target: str) -> dict[str, str]:
    """What of `headers` may go from `source` on to `target`. Raises SourceError when nothing may go there."""
    before, after = _origin(source), _origin(target)
    if after is None or before is None or len(target) > _MAX_URL:
        raise SourceError(f"{redacted(source)} redirects to {redacted(target)!r}, which is not an http URL")
    if before.scheme == "https" and after.scheme == "http":
        raise SourceError(f"{redacted(source)} redirects to {redacted(target)}, which is not encrypted")
    if before == after:
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() in _HARMLESS}


def _is_followed(method: str, url: str, status: int, location: str) -> bool:
    if method in ("GET", "HEAD"):
        return status in _FOLLOWED
    return status in _FOLLOWED_WITH_BODY and is_same_origin(url, joined(url, location))


def is_same_origin(url: str, other: str) -> bool:
    """Whether both talk to the same host and port by the same scheme."""
    origin = _origin(url)
    return origin is not None and origin == _origin(other)


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


def _origin(url: str) -> _Origin | None:
    """Whom `url` talks to; None when it is not an http URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    default = _PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        return None
    return _Origin(parts.scheme, parts.hostname, port or default)


def joined(url: str, location: str) -> str:
    """What `location`, absolute or relative, means in an answer from `url`. Raises SourceError."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise SourceError(f"{redacted(url)} redirects to what is not a URL") from error
