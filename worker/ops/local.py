"""`local://name`: a directory that whoever started the build offers. Its key is random: content finds the hits."""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.errors import ContextError
from solver.vertex import CacheMap, Result
from worker.context import OpContext
from worker.localtree import LocalTree
from worker.ops.keys import key_digest
from worker.sources.origin import LocalOrigin


class LocalSource:
    """`solver.Op`: hands out the directory, reads nothing."""

    def __init__(self, context: OpContext, origin: LocalOrigin) -> None:
        self._context = context
        self._origin = origin

    async def cache_map(self) -> CacheMap:
        """Never the same for two builds: what the directory holds now is nobody's key (BuildKit source/local)."""
        key = key_digest("local", self._context.session.id, self._origin.name, self._context.name)
        return CacheMap(digest=key, stable=False)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        directories = self._context.session.directories
        inline = await directories.inline_files(self._origin.name)
        path = await directories.local_path(self._origin.name)
        if path is None and not inline:
            raise ContextError(
                f"the client offers no directory {self._origin.name!r}",
                hint="give a build context, e.g. `pybuild build .`",
            )
        return [LocalTree(self._context.cache, path, self._origin, inline=inline)]
