"""The running registry: a listener, its connections, what is done in the background, and a line for every request.

    await serve(cache, Options(port=0), on_ready=print, on_request=print, ending=trio.Event())

Connections are bounded in number, and each of them in what it may keep waiting. Whatever goes wrong inside is told to
`on_request`, never to the client. Changes are made durable in the background, as many at once as there are; what
deletions have freed is collected there too.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from functools import partial

import trio

from buildengine.builder import ServedRequest
from buildengine.errors import BuildError, HostError
from buildengine.values import dataclass
from cache import prune
from cache.opened import Cache
from worker.registry.server.answers import Answer, Code, Refusal
from worker.registry.server.endpoints import Endpoints
from worker.registry.server.passwords import Passwords
from worker.registry.server.wire import Interrupted, Limits, Request, Stream, Wire

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_FAILED = Refusal(Code.UNKNOWN, "the registry's store has failed").answer
_HANDSHAKE_SECONDS = 20.0
_GRACE_SECONDS = 5.0
_TIDY_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`tls` None: plain HTTP. `passwords` None: everybody may do everything."""

    host: str = "127.0.0.1"
    port: int = 5000
    read_only: bool = False
    tls: ssl.SSLContext | None = None
    passwords: Passwords | None = None
    connections: int = 500
    limits: Limits = Limits()


OnRequest = Callable[[ServedRequest], object]


async def serve(
    cache: Cache,
    options: Options,
    *,
    on_ready: Callable[[str], object],
    on_request: OnRequest,
    ending: trio.Event,
) -> None:
    """Serve until `ending` is set, and some seconds longer while requests run. `on_ready` is told the URL.

    Raises HostError.
    """
    listeners = await _listen(options)
    server = _Server(cache, options, on_request)
    try:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listening:
                listening.start_soon(server.tidy)
                for one in listeners:
                    listening.start_soon(
                        partial(trio.serve_listeners, server.connection, [one], handler_nursery=connections)
                    )
                scheme = "http" if options.tls is None else "https"
                on_ready(f"{scheme}://{_spelled(listeners[0].socket.getsockname())}")
                await ending.wait()
                listening.cancel_scope.cancel()
            await server.end()
            connections.cancel_scope.cancel()
    finally:
        server.endpoints.uploads.close()


async def _listen(options: Options) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(options.port, host=options.host or None)
    except OSError as error:
        address = f"{options.host}:{options.port}"
        raise HostError(
            f"cannot listen on {address}: {error.strerror or error}", hint="name another address with --addr"
        ) from error
    return listeners[:1] if options.port == 0 else listeners  # port 0 is another one for each


class _Server:
    def __init__(self, cache: Cache, options: Options, on_request: OnRequest) -> None:
        self._cache = cache
        self._options = options
        self._on_request = on_request
        self._change = trio.Event()
        self._has_freed = False
        self._connections = 0
        self._number = 0
        self._waiting: set[trio.CancelScope] = set()  # connections on which no request is being answered
        self._quiet: trio.Event | None = None  # set when the last connection goes; there since the end began
        self.endpoints = Endpoints(cache, read_only=options.read_only, on_change=self._on_change)

    async def connection(self, stream: trio.SocketStream) -> None:
        """Talk to one client until it goes, or has to. Raises nothing."""
        self._connections += 1
        try:
            async with stream:
                if self._connections > self._options.connections:
                    await stream.send_all(_BUSY)
                else:
                    await self._converse(stream)
        except (Interrupted, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError):
            pass  # the client has gone, or might as well
        except Exception as error:
            self._on_request(ServedRequest(time=time.time(), problem=f"a connection failed: {error!r}"))
        finally:
            self._connections -= 1
            if self._quiet is not None and not self._connections:
                self._quiet.set()

    async def end(self) -> None:
        """Let what runs come to its end; who only waits for a request has to go."""
        self._quiet = trio.Event()
        for scope in self._waiting:
            scope.cancel()
        if self._connections:
            with trio.move_on_after(_GRACE_SECONDS):
                await self._quiet.wait()

    async def _converse(self, socket: trio.SocketStream) -> None:
        remote = _spelled(socket.socket.getpeername())
        stream: Stream = socket
        if self._options.tls is not None:
            stream = trio.SSLStream(socket, self._options.tls, server_side=True, https_compatible=True)
            with trio.fail_after(_HANDSHAKE_SECONDS):
                await stream.do_handshake()
        wire = Wire(stream, self._options.limits)
        while await self._exchange(wire, remote):
            pass

    async def _exchange(self, wire: Wire, remote: str) -> bool:
        """One request and its answer; whether another may follow."""
        request, problem = None, ""
        started, number = time.time(), 0
        try:
            try:
                request = await self._next(wire)
                if request is None:
                    return False
                self._number = number = self._number + 1
                answer, problem = await self._answer(request, wire)
            except Refusal as refusal:
                answer = refusal.answer
            return await wire.answer(request, answer)
        except Interrupted:
            problem = problem or "the client has gone"
            return False
        except BuildError as error:  # a blob that cannot be read, or not to its end
            problem = _told(error)
            return not wire.status and await wire.answer(request, _FAILED)
        finally:
            if request is not None:
                self._tell(request, wire, remote, number, started, problem)

    async def _next(self, wire: Wire) -> Request | None:
        if self._quiet is not None:
            return None
        request = None
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                request = await wire.request()
            finally:
                self._waiting.discard(scope)
        return request

    async def _answer(self, request: Request, wire: Wire) -> tuple[Answer, str]:
        """The answer, and what went wrong that is nobody's business but the log's."""
        try:
            if self._options.passwords is not None:
                await self._options.passwords.check(request.headers.get("authorization", ""))
            return await self.endpoints.answer(request, wire.body), ""
        except Refusal as refusal:
            return refusal.answer, ""
        except Interrupted:
            raise
        except BuildError as error:
            return _FAILED, _told(error)
        except Exception as error:
            return Refusal(Code.UNKNOWN, "internal error").answer, f"internal error: {error!r}"

    def _tell(self, request: Request, wire: Wire, remote: str, number: int, started: float, problem: str) -> None:
        self._on_request(
            ServedRequest(
                number=number,
                time=started,
                remote=remote,
                method=request.method,
                target=request.target,
                status=wire.status,
                received=wire.body.received,
                sent=wire.sent,
                seconds=time.time() - started,
                agent=request.headers.get("user-agent", ""),
                problem=problem,
            )
        )

    async def tidy(self) -> None:
        """Make changes durable, give back what deletions have freed, forget uploads that nobody goes on with."""
        while True:
            with trio.move_on_after(_TIDY_SECONDS):
                await self._change.wait()
            self._change = trio.Event()
            self.endpoints.uploads.expire()
            has_freed, self._has_freed = self._has_freed, False
            try:
                await self._cache.sync()
                if has_freed:
                    await prune.collect(self._cache)
            except BuildError as error:
                self._on_request(ServedRequest(time=time.time(), problem=_told(error)))

    def _on_change(self, *, frees: bool) -> None:
        self._has_freed = self._has_freed or frees
        self._change.set()


def _told(error: BuildError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _spelled(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
