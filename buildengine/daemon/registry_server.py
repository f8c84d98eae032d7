"""`Builder.serve_registry`: the registry of our own on the state directory, from its first to its last request.

SIGINT, SIGTERM and SIGHUP end it: nobody new is let in, what runs has a few seconds to finish, and what was pushed is
made durable. A second signal ends it at once.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio

from buildengine.builder import ServedRegistry, ServedRequest
from buildengine.daemon.certificates import TlsFiles, server_context
from buildengine.daemon.running import ending_signals
from buildengine.errors import UserError
from cache.opened import Cache
from worker.registry.server import passwords
from worker.registry.server.server import Options, serve


async def serve_registry(
    cache: Cache,
    registry: ServedRegistry,
    on_ready: Callable[[str], None],
    on_request: Callable[[ServedRequest], None],
) -> None:
    """Serve until a signal comes. Raises UserError and HostError before it is ready."""
    options = _options(registry)
    with ending_signals() as signals:
        async with trio.open_nursery() as nursery:
            ending = trio.Event()
            nursery.start_soon(_end, signals, ending, nursery.cancel_scope)
            await serve(cache, options, on_ready=on_ready, on_request=on_request, ending=ending)
            nursery.cancel_scope.cancel()


async def _end(signals: AsyncIterator[int], ending: trio.Event, scope: trio.CancelScope) -> None:
    async for _ in signals:
        if ending.is_set():
            scope.cancel()
        ending.set()


def _options(registry: ServedRegistry) -> Options:
    host, port = _address(registry.address)
    return Options(
        host=host,
        port=port,
        read_only=registry.read_only,
        tls=_tls(registry),
        passwords=None if registry.htpasswd is None else _passwords(registry.htpasswd),
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and host[0] != "["):
        raise UserError(f"{text!r} is no address to listen on", hint="it is host:port, e.g. 127.0.0.1:5000 or [::1]:0")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _tls(registry: ServedRegistry) -> ssl.SSLContext | None:
    if registry.tls_cert is None and registry.tls_key is None:
        return None
    if registry.tls_cert is None or registry.tls_key is None:
        raise UserError("TLS needs both a certificate and a key", hint="give --tls-cert and --tls-key")
    return server_context(TlsFiles(certificate=registry.tls_cert, key=registry.tls_key))


def _passwords(path: Path) -> passwords.Passwords:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return passwords.Passwords(passwords.parse(text, name=str(path)))
