"""`http(s)://`: one file, in a layer of its own. The key is what the URL holds when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from solver.vertex import CacheMap, Result
from worker.context import OpContext
from worker.ops.keys import key_digest
from worker.results import filled
from worker.sources import http
from worker.sources.http import HttpRevision
from worker.sources.origin import HttpOrigin


class HttpOp:
    """`solver.Op` for one URL."""

    is_bound = True

    def __init__(self, context: OpContext, origin: HttpOrigin) -> None:
        self._context = context
        self._origin = origin
        self._revision: HttpRevision | None = None

    async def _resolved(self) -> HttpRevision:
        if self._revision is None:
            remotes = await self._context.build.remotes()
            self._revision = await remotes.resolve_http(self._origin, self._context.session.secrets)
        return self._revision

    async def cache_map(self) -> CacheMap:
        revision = await self._resolved()
        return CacheMap(digest=key_digest("http", http.cache_key(self._origin, revision)), pin=str(revision.digest))

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        revision = await self._resolved()
        source = await (await self._context.build.remotes()).http()

        async def fetch(directory: int) -> None:
            await source.fetch(self._origin, revision, directory, self._context.session.secrets)

        description = f"downloaded from {self._origin.url.partition('?')[0]}"
        return [await filled(self._context.cache.layers, fetch, description=description)]
