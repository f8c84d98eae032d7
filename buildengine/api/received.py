"""Directories of clients, received into the store: kept for each client and name, so that the next build asks for
what has changed only.

A directory has one user at a time; who comes while all of that name are in use gets a new one. It belongs to whoever
got it until he releases it, and to the store afterwards: `du` shows it, `prune` removes it.

Facts: BuildKit source/local/source.go (the key), session/filesync/filesync.go (metadata of the call).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote_plus

import trio

from buildengine.api.fsknown import entries
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsreceive import Packets, receive
from buildengine.api.rpc import Code, Metadata, RpcError
from buildengine.api.sessions import ClientSession, SessionGone
from buildengine.errors import ContextError, StoreError
from buildengine.limits import DISK, offload
from cache.cachemounts import CacheMounts
from cache.localindex import LocalIndex
from cache.localscan import LocalScan
from cache.opened import Cache
from llb.patterns import PatternMatcher
from worker.session import ReceivedDirectory
from worker.sources.origin import LocalOrigin

_T = TypeVar("_T")
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"


class NotOffered(ContextError):
    """This client does not offer that directory: another one may."""


class ReceivedDirectories:
    """All received directories of one daemon. Made by `open_received`."""

    def __init__(self, mounts: CacheMounts, index: LocalIndex, nursery: trio.Nursery) -> None:
        self._mounts = mounts
        self._index = index
        self._nursery = nursery

    async def receive(
        self, session: ClientSession, origin: LocalOrigin, progress: Callable[[int], None]
    ) -> ReceivedDirectory:
        """What `origin` asks for, from the client of `session`. Raises ContextError, NotOffered, SessionGone."""
        if not session.supports(DIFF_COPY):
            raise NotOffered("no local sources enabled", hint="the client has to offer its directories")
        received: ReceivedDirectory = await self._nursery.start(self._hold, session, origin, progress)
        return received

    async def _hold(
        self,
        session: ClientSession,
        origin: LocalOrigin,
        progress: Callable[[int], None],
        *,
        task_status: trio.TaskStatus[ReceivedDirectory],
    ) -> None:
        """Receives, and keeps the directory locked until it is released. What goes wrong then is nobody's failure: the
        next who needs a store that is broken will say so."""
        suffix = ":metadata" if origin.metadata_only else ""
        key = f"local source {origin.name}:{origin.shared_key_hint}:{session.shared_key}{suffix}"
        described = f"local source for {origin.name}"
        released = trio.Event()
        held = self._mounts.acquire(key, sharing="private", kind="source.local", description=described)
        try:
            async with held as path:
                scan = await _answered(session, origin, partial(fill, self._index, path, origin, progress))
                task_status.started(ReceivedDirectory(path=str(path), scan=scan, release=released.set))
                await released.wait()
        except StoreError:
            if not released.is_set():
                raise


@asynccontextmanager
async def open_received(cache: Cache) -> AsyncIterator[ReceivedDirectories]:
    """Leaving the block takes back what was not released."""
    async with trio.open_nursery() as nursery:
        yield ReceivedDirectories(cache.cachemounts, cache.localindex, nursery)
        nursery.cancel_scope.cancel()


async def fill(
    index: LocalIndex, path: Path, origin: LocalOrigin, progress: Callable[[int], None], stream: Packets
) -> LocalScan:
    """Make the directory `path`, to which nobody else writes, what the client lists in its answer `stream`.

    It is looked at once, while the client lists its own, and then again only where something was changed; what was
    written is hashed already. Raises ContextError, RpcError.
    """
    scan = await index.scan(path)
    try:
        known = await offload(entries, scan, limiter=DISK)
        trust = origin.differ != "none"
        received = await receive(stream, scan.root, known, trust=trust, wanted=_wanted(origin), progress=progress)
        if received.affected == frozenset():
            return scan
        after = await index.scan_again(scan, path, received.affected, received.digests)
    except BaseException:
        scan.close()
        raise
    scan.close()
    return after


async def _answered(session: ClientSession, origin: LocalOrigin, fill: Callable[[Packets], Awaitable[_T]]) -> _T:
    """What `fill` makes of the client's answer."""
    call = session.channel.stream(DIFF_COPY, Packet, Packet, metadata=_metadata(origin))
    try:
        async with call as stream:
            return await fill(stream)
    except RpcError as error:
        if error.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
            raise NotOffered(error.message) from error
        if session.ended or error.code is Code.UNAVAILABLE:
            raise SessionGone(f"the client went while it sent the directory {origin.name!r}") from error
        raise ContextError(f"cannot receive the directory {origin.name!r}: {error.message}") from error


def _wanted(origin: LocalOrigin) -> Callable[[str], bool] | None:
    """Of which paths all is taken, when of most only the stats are."""
    if not origin.metadata_only:
        return None
    if not origin.metadata_exceptions:
        return lambda path: False
    return PatternMatcher(origin.metadata_exceptions).matches


def _metadata(origin: LocalOrigin) -> Metadata:
    lists = (
        ("dir-name", (origin.name,)),
        ("include-patterns", origin.include_patterns),
        ("exclude-patterns", origin.exclude_patterns),
        ("followpaths", origin.follow_paths),
    )
    return tuple(pair for name, values in lists for pair in _encoded(name, values))


def _encoded(name: str, values: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Headers are ASCII: with anything else all values of a name are escaped as in a query, and it says so."""
    values = tuple(values)
    if all(value.isascii() for value in values):
        return [(name, value) for value in values]
    return [*((name, quote_plus(value, safe="")) for value in values), (f"{name}-encoded", "1")]
