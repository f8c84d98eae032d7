"""`git://`: a checkout in a layer of its own. The key is the commit that the ref names when it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from solver.vertex import CacheMap, Result
from worker.context import OpContext
from worker.ops.keys import key_digest
from worker.results import filled
from worker.session import Session
from worker.sources import git
from worker.sources.git import Access, GitRevision
from worker.sources.origin import GitOrigin


class GitOp:
    """`solver.Op` for one repository at one ref."""

    is_bound = True

    def __init__(self, context: OpContext, origin: GitOrigin) -> None:
        self._context = context
        self._origin = origin
        self._revision: GitRevision | None = None

    async def cache_map(self) -> CacheMap:
        revision = await self._resolved()
        return CacheMap(digest=key_digest("git", git.cache_key(self._origin, revision)), pin=revision.object)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        revision = await self._resolved()

        async def checkout(directory: int) -> None:
            async with self._access() as access:
                source = (await self._context.build.remotes()).git()
                await source.checkout(self._origin, revision, directory, access)

        description = f"git snapshot of {revision.ref} at {revision.commit[:12]}"
        layers = self._context.cache.layers
        return [await filled(layers, checkout, kind="source.git.checkout", description=description)]

    async def _resolved(self) -> GitRevision:
        if self._revision is None:
            async with self._access() as access:
                remotes = await self._context.build.remotes()
                self._revision = await remotes.resolve_git(self._origin, access)
        return self._revision

    def _access(self) -> AbstractAsyncContextManager[Access]:
        return open_access(self._context.session, self._origin)


@asynccontextmanager
async def open_access(session: Session, origin: GitOrigin) -> AsyncIterator[Access]:
    """What the build may use for this repository, for as long as the block lasts."""
    opened = await session.ssh_agents.open(origin.ssh_socket) if origin.ssh_socket else None
    if opened is None:
        yield Access(secrets=session.secrets)
        return
    async with opened as path:
        yield Access(secrets=session.secrets, ssh_socket=path)
