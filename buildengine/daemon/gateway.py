"""What a frontend in this process may ask: `frontends.gateway.Gateway`, answered by the engine.

A reference is solved when its files are first read, once. A frontend's image references are resolved once for
the whole build: whoever asks again for the same one gets the same digest, even if the tag moves meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase

import trio

from buildengine.daemon.solving import Solving
from buildengine.daemon.steps import step
from buildengine.digest import Digest
from buildengine.errors import Location, SourceError
from buildengine.events import EventSink, WarningEvent
from buildengine.inroot import open_in_root, read_regular
from buildengine.platform import Platform
from frontends.gateway import ResolvedImage
from llb.definition import Definition
from solver.vertex import Result
from worker.localtree import LocalTree
from worker.results import Snapshot


class LocalReference:
    """A definition that the engine has accepted. `None` definitions never come here: scratch has no files."""

    def __init__(self, solving: Solving, definition: Definition) -> None:
        self._solving = solving
        self._definition = definition
        self._lock = trio.Lock()
        self._result: Result | None = None
        self._solved = False

    async def result(self) -> Result | None:
        async with self._lock:
            if not self._solved:
                self._result = await self._solving.solve(self._definition)
                self._solved = True
        return self._result

    async def read_file(self, path: str, *, limit: int = 16 << 20) -> bytes:
        result = await self.result()
        if isinstance(result, LocalTree):
            return result.read_file(path, limit=limit)
        if not isinstance(result, Snapshot):
            raise SourceError(f"{path}: not found: the tree is empty")
        await self._solving.context.trees.ensure(result.stack)
        with self._solving.context.trees.open_stack(result.stack) as root:
            try:
                return read_regular(root, path, limit=limit)
            except OSError as error:
                raise SourceError(f"{path}: {error.strerror}") from error

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[str]:
        result = await self.result()
        if isinstance(result, LocalTree):
            names = result.read_dir(path)
        elif isinstance(result, Snapshot):
            await self._solving.context.trees.ensure(result.stack)
            with self._solving.context.trees.open_stack(result.stack) as root:
                names = _list(root, path)
        else:
            names = []
        return [name for name in names if not include or fnmatchcase(name, include)]


def _list(root: int, path: str) -> list[str]:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


class LocalGateway:
    """`frontends.gateway.Gateway` for one build."""

    def __init__(self, solving: Solving, on_event: EventSink) -> None:
        self._solving = solving
        self._on_event = on_event
        self._locks: dict[tuple[str, Platform, str], trio.Lock] = {}
        self._resolved: dict[tuple[str, Platform, str], ResolvedImage] = {}

    async def solve(self, definition: Definition) -> LocalReference:
        return LocalReference(self._solving, definition)

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        key = (reference, platform, mode)
        async with self._locks.setdefault(key, trio.Lock()):
            if key not in self._resolved:
                shown = name or f"[internal] load metadata for {reference}"
                with step(self._on_event, shown, salt=str(platform)):
                    image = await self._solving.context.images.resolve(reference, platform=platform, mode=mode)
                    self._resolved[key] = ResolvedImage(
                        reference=image.reference, digest=image.digest, config=image.config.raw
                    )
        return self._resolved[key]

    def warn(
        self, message: str, *, detail: Sequence[str] = (), url: str = "", location: Location | None = None
    ) -> None:
        vertex = Digest.sha256(b"frontend warnings")
        self._on_event(WarningEvent(vertex=vertex, message=message, detail=tuple(detail), url=url, location=location))
