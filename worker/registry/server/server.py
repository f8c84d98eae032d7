"""The running registry: a listener, its connections, what is done in the background, and a line for every request.

    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serve, cache, options, on_request=...))

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
_HANDSHAKE_SECONDS = 20.0


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
    on_request: OnRequest,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Starts with the address that it is bound to. Raises HostError."""
    listeners = await _listen(options)
    server = _Server(cache, options, on_request)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.tidy)
            for listener in listeners:
                nursery.start_soon(
                    partial(trio.serve_listeners, server.connection, [listener], handler_nursery=nursery)
                )
            task_status.started(_spelled(listeners[0].socket.getsockname()))
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
        self._connections = 0
        self._number = 0
        self.endpoints = Endpoints(cache, read_only=options.read_only, on_change=lambda: self._change.set())

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
            pass
        finally:
            self._connections -= 1

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
        request, problem, status = None, "", 0
        started, number = time.time(), 0
        try:
            try:
                request = await wire.request()
                if request is None:
                    return False
                self._number = number = self._number + 1
                answer, problem = await self._answer(request, wire)
            except Refusal as refusal:
                answer = refusal.answer
            status = answer.status
            return await wire.answer(request, answer)
        except Interrupted:
            problem = problem or "the client has gone"
            return False
        finally:
            if request is not None:
                self._tell(request, wire, remote, number, started, status, problem)

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
            return Refusal(Code.UNKNOWN, "the registry's store has failed").answer, f"{error} ({error.hint})"
        except Exception as error:
            return Refusal(Code.UNKNOWN, "internal error").answer, f"internal error: {error!r}"

    def _tell(
        self, request: Request, wire: Wire, remote: str, number: int, started: float, status: int, problem: str
    ) -> None:
        self._on_request(
            ServedRequest(
                number=number,
                time=started,
                remote=remote,
                method=request.method,
                target=request.target,
                status=status,
                received=wire.body.received,
                sent=wire.sent,
                seconds=time.time() - started,
                agent=request.headers.get("user-agent", ""),
                problem=problem,
            )
        )

    async def tidy(self) -> None:
        """Make changes durable, and give back what deletions have freed."""
        while True:
            await self._change.wait()
            self._change = trio.Event()
            try:
                await self._cache.sync()
                await prune.collect(self._cache)
            except BuildError as error:
                self._on_request(ServedRequest(time=time.time(), problem=f"{error} ({error.hint})"))


def _spelled(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
