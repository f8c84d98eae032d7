"""`local://name`: a directory that whoever started the build offers. Its key is random: content finds the hits."""

from __future__ import annotations

import time
from collections.abc import Sequence

from buildengine.errors import ContextError
from solver.vertex import CacheMap, Result
from worker.context import OpContext
from worker.localtree import LocalDirectory, LocalTree
from worker.ops.keys import key_digest
from worker.session import Directories, ReceivedDirectory
from worker.sources.origin import LocalOrigin


class LocalSource:
    """`solver.Op`: hands out the directory, reads nothing."""

    is_bound = True

    def __init__(self, context: OpContext, origin: LocalOrigin) -> None:
        self._context = context
        self._origin = origin

    async def cache_map(self) -> CacheMap:
        """Never the same for two builds: what the directory holds now is nobody's key (BuildKit source/local)."""
        key = key_digest("local", self._context.session.id, self._origin.name, self._context.name)
        return CacheMap(digest=key, stable=False, pin=f"session:{self._context.session.id}")

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        origin = self._origin
        directories = self._context.session.directories
        inline = await directories.inline_files(origin.name)
        path = await directories.local_path(origin.name)
        if path is not None or inline:
            return [LocalTree(LocalDirectory(self._context.cache, path, origin, inline=inline))]
        received = await self._receive(directories)
        if received is None:
            raise ContextError(
                f"the client offers no directory {origin.name!r}",
                hint="give a build context, e.g. `pybuild build .`",
            )
        whole = LocalOrigin(name=origin.name)  # the client has filtered it
        directory = LocalDirectory(
            self._context.cache, received.path, whole, scan=received.scan, release=received.release
        )
        return [LocalTree(directory)]

    async def _receive(self, directories: Directories) -> ReceivedDirectory | None:
        reporter, started, current = self._context.reporter, time.time(), 0
        name = f"transferring {self._origin.name}:"

        def progress(count: int) -> None:
            nonlocal current
            current = count
            reporter.status(name, current=count, started=started)

        progress(0)
        received = await directories.receive(self._origin, progress)
        reporter.status(name, current=current, started=started, completed=time.time())
        return received
