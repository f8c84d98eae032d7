"""Tokens that a daemon asks of its client, fetched with the user's logins: the password stays here.

What talks to registries does so in trio, so it gets a loop and a thread of its own. Few builds ask for a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio

from buildengine.api.auth_pb2 import FetchTokenRequest
from buildengine.client.auth import Logins
from worker.registry.configured import registry_config
from worker.registry.dockerconfig import host_of
from worker.registry.hosts import tls
from worker.registry.tokens import Bearer, Issued, TokenService
from worker.registry.transport import Unreachable, open_transport
from worker.session import Credential

_T = TypeVar("_T")


async def fetch(logins: Logins, request: FetchTokenRequest, credential: Credential | None) -> Issued:
    """Raises RegistryError, SourceError."""
    try:
        return await _in_trio(partial(_fetch, logins, request, credential))
    except Unreachable as error:
        error.hint = "with BUILDKIT_NO_CLIENT_TOKEN=1 the daemon asks in the place of this client"
        raise


async def _fetch(logins: Logins, request: FetchTokenRequest, credential: Credential | None) -> Issued:
    config = registry_config(logins.registries, logins.environment)
    async with open_transport(lambda name: tls(name, config), config.proxies.choose) as transport:
        service = TokenService(
            Bearer(realm=request.Realm, service=request.Service),
            host=request.Host,
            key=host_of(request.Host),
            is_plain=True,  # it may be: only the daemon has seen it
            transport=transport,
        )
        return await service.fetch(" ".join(request.Scopes), credential)


async def _in_trio(main: Callable[[], Awaitable[_T]]) -> _T:
    """Cancelled, it cancels `main`, and waits for its end."""
    scope, results = trio.CancelScope(), list[_T]()
    running: list[trio.lowlevel.TrioToken] = []
    unwanted = False

    async def run() -> None:
        running.append(trio.lowlevel.current_trio_token())
        with scope:
            if not unwanted:
                results.append(await main())

    work = asyncio.ensure_future(asyncio.to_thread(trio.run, run))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        unwanted = True
        with suppress(trio.RunFinishedError):
            for token in running:
                token.run_sync_soon(scope.cancel)
        await asyncio.wait((work,))
        raise
    return results[0]
