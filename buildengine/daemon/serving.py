"""A daemon from its first to its last connection: listeners, services, and how it ends.

SIGTERM, SIGINT and SIGHUP end it: nobody new is let in, builds are cancelled, and what they had started has gone before
the program ends. Whatever hangs then, it takes no longer than `LAST` seconds.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import trio

from buildengine.api import rpc, status, traces
from buildengine.api.connection import Closing, serve_connection
from buildengine.api.content import SERVICE as CONTENT
from buildengine.api.content import Content
from buildengine.api.control import SERVICE, Control
from buildengine.api.debug import SERVICE as DEBUG
from buildengine.api.debug import Debug
from buildengine.api.explaining import SERVICE as EXPLAIN
from buildengine.api.explaining import Explain
from buildengine.api.gateway import SERVICE as GATEWAY
from buildengine.api.gateway import Gateway
from buildengine.api.health import Health
from buildengine.api.images import SERVICE as IMAGES
from buildengine.api.images import Images
from buildengine.api.reflection import reflection
from buildengine.api.session import remote_credentials
from buildengine.api.traces import SERVICE as TRACES
from buildengine.daemon import residency, systemd
from buildengine.daemon.builds import Stopped
from buildengine.daemon.certificates import TlsFiles
from buildengine.daemon.daemonconfig import DaemonConfig, read_provenance
from buildengine.daemon.engine import open_engine
from buildengine.daemon.history import Limits, open_history
from buildengine.daemon.listeners import Access, Listener, bind
from buildengine.daemon.log import Log
from buildengine.daemon.running import ending_signals
from buildengine.daemon.service import Service, Settings, open_service
from buildengine.errors import BuildError, HostError, InternalError, SolveError
from cache.opened import Cache

LAST = 9.5  # seconds from the signal to the end, at most
_HANDSHAKE = 10.0
_FAREWELL = 1.0  # seconds for the last answers to go out
_AGAIN = 0.1  # seconds until we try again to accept
_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


async def serve(config: DaemonConfig, environment: Mapping[str, str], log: Log) -> None:
    """Until a signal comes. Raises BuildError before it serves."""
    with ending_signals() as signals:
        async with _listening(config, environment) as bound, _running(config) as service:
            for listener in bound:
                log.info(f"running server on {listener.address}")
                if listener.is_open:
                    log.warning(f"whoever reaches {listener.address} can build: --tlscert, --tlskey, --tlscacert help")
            await _serve_all(bound, service, signals, environment, log)


@asynccontextmanager
async def _listening(config: DaemonConfig, environment: Mapping[str, str]) -> AsyncIterator[list[Listener]]:
    """Before the engine is opened: who connects meanwhile waits."""
    tls = None
    if config.tls_certificate is not None and config.tls_key is not None:
        tls = TlsFiles(certificate=config.tls_certificate, key=config.tls_key, authority=config.tls_authority)
    access = Access(uid=config.uid, gid=config.gid)
    bound = bind(config.addresses, access, tls, systemd.inherited(environment))
    try:
        for listener in reversed(bound):  # who gets through to the first gets through to all
            listener.listen()
        yield bound
    finally:
        for listener in bound:
            listener.close()


@asynccontextmanager
async def _running(config: DaemonConfig) -> AsyncIterator[Service]:
    limits = Limits(max_age=config.history_max_age, max_entries=config.history_max_entries)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(config.engine))
        stack.enter_context(_only_daemon(engine.cache))
        history = await stack.enter_async_context(open_history(engine.cache.root, limits))
        settings = Settings(entitlements=config.entitlements, provenance=read_provenance(config.provenance_env))
        service = await stack.enter_async_context(open_service(engine, history, settings))
        await engine.stand_by()
        residency.settle()
        yield service


@contextmanager
def _only_daemon(cache: Cache) -> Iterator[None]:
    """One daemon for each store; commands may use it meanwhile."""
    lock = cache.locks.try_lock("the daemon of this store")
    if lock is None:
        raise HostError(f"another pybuildd serves {cache.root}", hint="end it, or name another --root")
    try:
        yield
    finally:
        lock.release()


async def _serve_all(
    bound: Sequence[Listener],
    service: Service,
    signals: AsyncIterator[int],
    environment: Mapping[str, str],
    log: Log,
) -> None:
    services = all_services(service)
    closing = Closing(Stopped().message)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for listener in bound:
                accepting.start_soon(_accept, listener, services, connections, closing, log)
            systemd.notify(environment, "READY=1")
            async for _ in signals:
                break
            signal.setitimer(signal.ITIMER_REAL, LAST)  # SIGALRM kills; steps die with us, the next start cleans up
            log.info("stopping server")
            systemd.notify(environment, "STOPPING=1")
            accepting.cancel_scope.cancel()
        for listener in bound:
            listener.close()
        closing.begun.set()
        await service.stop()
        closing.over.set()
        connections.cancel_scope.deadline = trio.current_time() + _FAREWELL


def all_services(service: Service) -> rpc.Services:
    """Whatever one port serves."""
    control = Control(service, service.sessions).services
    gateway = Gateway(service.bridges.find, service.worker).services
    health = Health(SERVICE, GATEWAY, CONTENT, TRACES, IMAGES, DEBUG, EXPLAIN).services
    images = Images(service.images, partial(remote_credentials, service.sessions)).services
    own = rpc.merged(images, Debug(service).services, Explain(service).services)
    served = rpc.merged(control, gateway, Content(service).services, traces.SERVICES, own, health)
    return rpc.merged(served, reflection(served))


async def _accept(
    listener: Listener, services: rpc.Services, connections: trio.Nursery, closing: Closing, log: Log
) -> None:
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _NO_MORE_FILES:
                raise
            log.warning(f"cannot accept a connection: {error.strerror}")
            await trio.sleep(_AGAIN)
            continue
        connections.start_soon(_serve, stream, services, closing, log)


async def _serve(stream: trio.abc.Stream, services: rpc.Services, closing: Closing, log: Log) -> None:
    """One connection; nothing that goes wrong on it is the daemon's end."""

    def describe(error: BaseException) -> rpc.RpcError:
        for bug in _bugs(error):
            log.bug(bug)
        return status.to_rpc(error)

    try:
        if isinstance(stream, trio.SSLStream):
            with trio.fail_after(_HANDSHAKE):
                await stream.do_handshake()
        await serve_connection(stream, services, describe=describe, closing=closing)
    except (trio.BrokenResourceError, trio.TooSlowError):
        return
    except Exception as error:
        log.bug(error)
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


def _bugs(error: BaseException) -> Iterator[BaseException]:
    """What in it is our fault."""
    if isinstance(error, SolveError):
        yield from (failure for failure in error.failures if isinstance(failure, InternalError))
    elif isinstance(error, InternalError) or not isinstance(error, rpc.RpcError | BuildError):
        yield error
