"""HTTP/1.1 as registries need it: connections that are used again, TLS, proxies. Imported by the first request only.

What is written and read on one connection stands in `worker.registry.connection`. No client library stands between:
on loopback, what it copies and what its import takes are a quarter of the time of a pull.
"""

from __future__ import annotations

import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import cached_property
from urllib.parse import SplitResult, quote, unquote, urlsplit

import h11
import trio

from buildengine.errors import ConfigError, SourceError
from worker.registry.connection import FAILURES, Connection, Content, HttpRequest, NoTunnel, Origin, Proxy, connect
from worker.registry.hosts import Tls
from worker.registry.transport import Body, StreamedBody, Unreachable, redacted

_READ = 512 << 10
_SMALL_READ = 16 << 10
_DRAINED = 64 << 10
_IDLE_TIMEOUT = 60.0
_DIGESTED = 600.0  # a registry that was sent a large blob may copy it to its storage before it says a word
_MAX_CONNECTIONS = 32
_KEPT_ALIVE = 30.0
_PORTS = {"http": 80, "https": 443}
_ALLOWED_IN_TARGET = "%/:=&?~+!$,;'@()*[]-._"
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


class Pools:
    """One pool of connections for each TLS setting and proxy."""

    def __init__(self, tls: Callable[[str], Tls], proxy: Callable[[str, str], str]) -> None:
        self._tls = tls
        self._proxy = proxy
        self._pools: dict[tuple[Tls | None, str], _Pool] = {}
        self._answered: set[str] = set()

    @asynccontextmanager
    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: Body
    ) -> AsyncIterator[HttpResponse]:
        """One request and its response; no redirects. Raises Unreachable, SourceError."""
        async with AsyncExitStack() as held:
            try:
                parts, origin = _split(url)
                pool = self._pool(parts)
                connection = await held.enter_async_context(pool.connection(origin))
                size = len(content) if isinstance(content, bytes) else content.size
                async with _opened(content) as begun:
                    request = _request(method, parts, headers, begun, size, pool.forwarder)
                    head = await connection.exchange(request)
            except FAILURES as error:
                raise self._unreachable(url, error) from error
            self._answered.add(_host(url))
            yield HttpResponse(connection, head, url)

    def _unreachable(self, url: str, error: BaseException) -> SourceError:
        """Worth another attempt, unless it is plain that nobody is there or that we shall not trust each other."""
        message = f"cannot reach {redacted(url)}: {_reason(error)}"
        cause = _innermost(error)
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return SourceError(message, hint="check the name, and the host's DNS")
        if isinstance(cause, NoTunnel):
            kind = Unreachable if cause.status >= 500 else SourceError
            return kind(message, hint="HTTPS_PROXY names the proxy, NO_PROXY what is reached without it")
        if isinstance(cause, ConnectionRefusedError) and _host(url) not in self._answered:
            return SourceError(message, hint="nothing listens there: check the host and the port")
        if isinstance(cause, ssl.SSLError) and (hint := _tls_hint(cause, _host(url))):
            return SourceError(message, hint=hint)
        # A server that does not like our certificate may have gone before it is read why.
        unheard = url.startswith("https:") and _host(url) not in self._answered
        return Unreachable(message, hint=_certificate_hint(_host(url)) if unheard else None)

    def _pool(self, parts: SplitResult) -> _Pool:
        host = parts.netloc.rpartition("@")[2]
        tls = self._tls(host) if parts.scheme == "https" else None
        key = (tls, self._proxy(parts.scheme, host))
        if key not in self._pools:
            self._pools[key] = _Pool(tls, _proxy_of(key[1]) if key[1] else None)
        return self._pools[key]

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Pool:
    """Connections to any number of origins, all made in one way."""

    def __init__(self, tls: Tls | None, proxy: Proxy | None) -> None:
        self._tls = tls
        self._proxy = proxy
        self._idle: dict[Origin, list[tuple[float, Connection]]] = defaultdict(list)  # since when; newest last
        self._places = trio.Semaphore(_MAX_CONNECTIONS)

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        return None if self._tls is None else tls_context(self._tls)

    @asynccontextmanager
    async def connection(self, origin: Origin) -> AsyncIterator[Connection]:
        """One that nobody else uses in this block. It is kept when a further request may follow on it."""
        async with self._places:
            connection = await self._waiting(origin)
            if connection is None:
                connection = await connect(origin, tls=self._context, proxy=self._proxy)
            try:
                yield connection
            finally:
                if connection.is_reusable:
                    self._idle[origin].append((trio.current_time(), connection))
                else:
                    await _closed(connection)

    async def _waiting(self, origin: Origin) -> Connection | None:
        while self._idle[origin]:
            since, connection = self._idle[origin].pop()
            if trio.current_time() - since < _KEPT_ALIVE and not connection.is_stale:
                return connection
            await _closed(connection)
        return None

    @property
    def forwarder(self) -> Proxy | None:
        """The proxy that is given whole requests, if any; through a tunnel they go as they would without."""
        return self._proxy if self._tls is None else None

    async def aclose(self) -> None:
        for waiting in self._idle.values():
            for _, connection in waiting:
                await _closed(connection)


async def _closed(connection: Connection) -> None:
    with trio.CancelScope(shield=True):
        await connection.aclose()


class HttpResponse:
    """`transport.Response`."""

    def __init__(self, connection: Connection, head: h11.Response, url: str) -> None:
        self._connection = connection
        self._broken: Unreachable | None = None
        self.status = head.status_code
        self.url = url
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.headers: Mapping[str, str] = headers

    async def fill(self, buffer: memoryview) -> int:
        if self._broken is not None:
            raise self._broken
        try:
            return await self._connection.fill(buffer)
        except FAILURES as error:
            self._broken = Unreachable(f"{redacted(self.url)} broke off: {_reason(error)}")
            raise self._broken from error

    def take_ready(self, buffer: memoryview) -> int:
        return self._connection.take_ready(buffer)

    async def chunks(self, size: int = _READ) -> AsyncGenerator[bytes]:
        buffer = memoryview(bytearray(size))
        while count := await self.fill(buffer):
            yield bytes(buffer[:count])

    async def read(self, limit: int) -> bytes:
        data = bytearray()
        async with aclosing(self.chunks(_SMALL_READ)) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise SourceError(f"{redacted(self.url)}: the answer is longer than {limit} bytes")
        return bytes(data)

    async def drain(self) -> None:
        """Read a short rest, so that the connection can be used again."""
        left = _DRAINED
        async with aclosing(self.chunks(_SMALL_READ)) as chunks:
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The TLS context for these settings. Raises ConfigError when a file of theirs cannot be used."""
    context = ssl.create_default_context()
    try:
        for path in tls.ca:
            context.load_verify_locations(cafile=path)
        for pair in tls.key_pairs:
            context.load_cert_chain(pair.certificate, pair.key)
    except (OSError, ssl.SSLError) as error:
        files = [*tls.ca, *(name for pair in tls.key_pairs for name in (pair.certificate, pair.key))]
        raise ConfigError(f"cannot use one of the TLS files {', '.join(files)}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def _opened(content: Body) -> AsyncIterator[Content]:
    """A body, begun where it is a stream."""
    if isinstance(content, StreamedBody):
        async with aclosing(content.open()) as pieces:
            yield pieces
    else:
        yield content


def _split(url: str) -> tuple[SplitResult, Origin]:
    """A URL and whom it is asked of. Raises SourceError."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:
        raise SourceError(f"cannot ask for {redacted(url)}: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise SourceError(f"cannot ask for {redacted(url)}: it is not an http URL")
    return parts, Origin(scheme=parts.scheme, host=host, port=port or _PORTS[parts.scheme])


def _request(
    method: str,
    parts: SplitResult,
    headers: Mapping[str, str],
    content: Content,
    size: int,
    proxy: Proxy | None,
) -> HttpRequest:
    """The request for a URL; one that `proxy` is to forward names all of it (RFC 9112, 3.2.2)."""
    host = (parts.hostname or "").encode("idna").decode()
    name = f"[{host}]" if ":" in host else host
    authority = f"{name}:{parts.port}" if parts.port else name
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_ALLOWED_IN_TARGET)
    try:
        own = [(b"host", authority.encode()), *(proxy.headers if proxy else ())]
        if size or method not in ("GET", "HEAD"):  # many a proxy answers 411 to a POST that does not say "nothing"
            own.append((b"content-length", str(size).encode()))
        given = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    except ValueError as error:
        raise SourceError(f"cannot ask for {redacted(parts.geturl())}: {error}") from error
    return HttpRequest(
        method=method,
        target=f"{parts.scheme}://{authority}{target}" if proxy else target,
        headers=(*own, *given),
        content=content,
        patience=_DIGESTED if method in ("PUT", "PATCH") else _IDLE_TIMEOUT,
    )


def _proxy_of(url: str) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(f"cannot use the proxy {redacted(url)}", hint="a proxy is http://host:port")
    origin = Origin(scheme=parts.scheme, host=parts.hostname, port=parts.port or _PORTS[parts.scheme])
    if not parts.username:
        return Proxy(origin=origin)
    return Proxy.basic(origin, unquote(parts.username), unquote(parts.password or ""))


def _host(url: str) -> str:
    """Host and port, as the configuration names them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _innermost(error: BaseException) -> BaseException:
    """The reason behind wrappers of wrappers, which say little."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    while isinstance(error, BaseExceptionGroup):  # one for each address of the host
        error = error.exceptions[-1]
    return error


def _reason(error: BaseException) -> str:
    error = _innermost(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
        return "it does not speak TLS"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"  # trio's own text has the address once more
    if isinstance(error, trio.TooSlowError):
        return "it took too long"
    if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
        return "the connection was closed"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def _tls_hint(error: ssl.SSLError, host: str) -> str:
    """What to configure when the two sides cannot agree; "" when that is not what went wrong."""
    section = f'[registry."{host}"]'
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"name the authority that signed it: `ca` in {section}, or a .crt file in /etc/docker/certs.d/{host}"
    if error.reason in _NOT_TLS:
        return f"if it is a plain HTTP registry, say `http = true` in {section}"
    if "_ALERT_" in (error.reason or ""):
        return _certificate_hint(host)
    return ""  # cut off: the network's doing


def _certificate_hint(host: str) -> str:
    section, directory = f'[registry."{host}"]', f"/etc/docker/certs.d/{host}"
    return f"it may want a client certificate: `keypair` in {section}, or .cert and .key in {directory}"
