"""HTTP/1.1 on trio through httpcore2: pools of connections, TLS, proxies. Imported by the first request only.

httpcore2 is what httpx2 is made of; of the layer above it nothing is needed here, and it would cost another
25 ms of import and its 64 KiB reads: on loopback a pull runs a third faster with the reads of `_READ` bytes.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpcore2
import trio

from buildengine.errors import ConfigError, SourceError
from worker.registry.hosts import Tls
from worker.registry.transport import Body, Unreachable, redacted

_READ = 512 << 10
_DRAINED = 64 << 10
_CONNECT_TIMEOUT = 15.0
_IDLE_TIMEOUT = 60.0
_DIGESTED = 600.0  # a registry that was sent a large blob may copy it to its storage before it says a word
_MAX_CONNECTIONS = 32
_KEPT_ALIVE = 30.0
_ALLOWED_IN_TARGET = "%/:=&?~+!$,;'@()*[]-._"
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
_FAILURES = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError)

_Pool = httpcore2.AsyncConnectionPool


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
        try:
            async with AsyncExitStack() as body:
                if isinstance(content, bytes):
                    request = _request(method, url, headers, content, len(content))
                else:
                    stream = await body.enter_async_context(aclosing(content.open()))
                    request = _request(method, url, headers, stream, content.size)
                response = await self._pool(url).handle_async_request(request)
        except _FAILURES as error:
            raise self._unreachable(url, error) from error
        self._answered.add(_host(url))
        try:
            yield HttpResponse(response, url)
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

    def _unreachable(self, url: str, error: BaseException) -> SourceError:
        """Worth another attempt, unless it is plain that nobody is there or that we shall not trust each other."""
        message = f"cannot reach {redacted(url)}: {_reason(error)}"
        cause = _innermost(error)
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return SourceError(message, hint="check the name, and the host's DNS")
        if isinstance(cause, ConnectionRefusedError) and _host(url) not in self._answered:
            return SourceError(message, hint="nothing listens there: check the host and the port")
        if isinstance(cause, ssl.SSLError) and (hint := _tls_hint(cause, _host(url))):
            return SourceError(message, hint=hint)
        # A server that does not like our certificate may have gone before it is read why.
        unheard = url.startswith("https:") and _host(url) not in self._answered
        return Unreachable(message, hint=_certificate_hint(_host(url)) if unheard else None)

    def _pool(self, url: str) -> _Pool:
        parts = urlsplit(url)
        host = _host(url)
        tls = self._tls(host) if parts.scheme == "https" else None
        key = (tls, self._proxy(parts.scheme, host))
        if key not in self._pools:
            self._pools[key] = _Pool(
                # A context without authorities for plain HTTP: loading the system's takes 10 ms.
                ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls is None else tls_context(tls),
                proxy=_proxy_of(key[1]) if key[1] else None,
                max_connections=_MAX_CONNECTIONS,
                keepalive_expiry=_KEPT_ALIVE,
                network_backend=_WideBackend(),
            )
        return self._pools[key]

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class HttpResponse:
    """`transport.Response`."""

    def __init__(self, response: httpcore2.Response, url: str) -> None:
        self._response = response
        self.status = response.status
        self.url = url
        headers: dict[str, str] = {}
        for raw_name, raw_value in response.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.headers: Mapping[str, str] = headers

    async def read(self, limit: int) -> bytes:
        data = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise SourceError(f"{redacted(self.url)}: the answer is longer than {limit} bytes")
        return bytes(data)

    async def chunks(self) -> AsyncGenerator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, AsyncIterable)
        try:
            async with aclosing(cast(AsyncGenerator[bytes], aiter(stream))) as pieces:
                async for piece in pieces:
                    yield piece
        except _FAILURES as error:
            raise Unreachable(f"{redacted(self.url)} broke off: {_reason(error)}") from error

    async def drain(self) -> None:
        """Read a short rest, so that the connection can be used again."""
        left = _DRAINED
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return


class _WideStream(httpcore2.AsyncNetworkStream):
    """A connection that is read in large pieces, whatever the protocol code asks for."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max(max_bytes, _READ), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _WideStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _WideBackend(httpcore2.TrioBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _WideStream(await super().connect_tcp(host, port, timeout, local_address, socket_options))


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
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _request(
    method: str, url: str, headers: Mapping[str, str], content: bytes | AsyncIterator[bytes], size: int
) -> httpcore2.Request:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        raw_headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    except ValueError as error:
        raise SourceError(f"cannot ask for {redacted(url)}: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise SourceError(f"cannot ask for {redacted(url)}: it is not an http URL")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    common = [(b"host", (f"{name}:{port}" if port else name).encode())]
    if size or method not in ("GET", "HEAD"):  # many a proxy answers 411 to a POST that does not say "nothing"
        common.append((b"content-length", str(size).encode()))
    patience = _DIGESTED if method in ("PUT", "PATCH") else _IDLE_TIMEOUT
    timeouts = {"connect": _CONNECT_TIMEOUT, "read": patience, "write": _IDLE_TIMEOUT}
    return httpcore2.Request(
        method,
        httpcore2.URL(scheme=parts.scheme, host=host, port=port, target=quote(target, safe=_ALLOWED_IN_TARGET)),
        headers=common + raw_headers,
        content=content,
        extensions={"timeout": timeouts},
    )


def _proxy_of(url: str) -> httpcore2.Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"cannot use the proxy {redacted(url)}", hint="a proxy is http://host:port")
    auth = (parts.username, parts.password or "") if parts.username else None
    return httpcore2.Proxy(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", auth=auth)


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
    if isinstance(error, trio.BrokenResourceError):
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
