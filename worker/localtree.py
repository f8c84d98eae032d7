"""A directory of the user's as a result: looked at, never read before somebody needs what is in it.

`content_digest` and copying go to the directory itself, through one scan of it. Where something has to be mounted
(a bind mount, the input of a merge) `stack` copies it into a layer first: never is the user's own directory
mounted into a step. The same content gives the same layer again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import trio

from buildengine.digest import Digest
from buildengine.errors import ContextChanged, ContextError, SourceError
from cache.localcheck import check_paths
from cache.localscan import LocalScan
from cache.opened import Cache
from cache.selection import PatternFilter, Selector
from llb.ops import CopyAction
from worker.results import filled
from worker.sources.local import include_patterns
from worker.sources.origin import LocalOrigin

NOTHING: Mapping[str, bytes] = MappingProxyType({})
_WHOLE = CopyAction(src="/", dest="/", dir_copy_contents=True)


class LocalTree:
    """A counted reference to a directory and the part of it that a build may see."""

    def __init__(self, directory: LocalDirectory) -> None:
        self._shared = directory
        self._shared.count += 1
        self._released = False

    def clone(self) -> LocalTree:
        return LocalTree(self._shared)

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._shared.drop()

    @property
    def path(self) -> str | None:
        return self._shared.path

    async def scan(self) -> LocalScan:
        """What is there, looked at once for as long as this tree is held. Every content digest given holds for it."""
        return await self._shared.scan()

    async def content_digest(self, selectors: Sequence[Selector]) -> Digest:
        return await self._shared.content_digest(selectors)

    async def stack(self) -> tuple[str, ...]:
        """The tree as a stack of one layer."""
        return await self._shared.stack()

    def inline_file(self, path: str) -> bytes | None:
        """A file of the directory that is nowhere on disk."""
        return self._shared.inline.get(path.lstrip("/"))

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """The directory as it is now, for reading `path`. Raises SourceError when there is none."""
        try:
            if self._shared.path is None:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            root = os.open(self._shared.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield root
            finally:
                os.close(root)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error


class LocalDirectory:
    """What all references to one directory have in common. With the last of them `release` is called.

    `scan` is of a look that somebody had at it already. `_given` are the content digests that somebody has made a key
    of. They hold for the newest scan, which is what is copied from: files of one moment under the key of another would
    be repeated for ever.
    """

    def __init__(
        self,
        cache: Cache,
        path: str | None,
        origin: LocalOrigin,
        *,
        inline: Mapping[str, bytes] = NOTHING,
        scan: LocalScan | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._release = release
        self.inline = inline
        self.count = 0
        self._cache = cache
        self._origin = origin
        self._looking = trio.Lock()
        self._copying = trio.Lock()
        self._scan = scan
        self._opened = [] if scan is None else [scan]  # it and the one before, from which somebody may be copying still
        self._given: dict[tuple[Selector, ...], Digest] = {}
        self._stack: tuple[str, ...] | None = None

    def drop(self) -> None:
        self.count -= 1
        if self.count:
            return
        for scan in self._opened:
            scan.close()
        if self._stack is not None:
            self._cache.layers.release(self._stack)
        self._release()

    async def scan(self) -> LocalScan:
        async with self._looking:
            if self._scan is None:
                self._scan = await self._new_scan()
            return self._scan

    async def _new_scan(self) -> LocalScan:
        origin = self._origin
        if self.path is None:
            raise ContextError(f"the directory {origin.name!r} has no files but {', '.join(self.inline)}")
        include = include_patterns(self.path, origin)
        if include or origin.exclude_patterns:
            keep, key = PatternFilter(include, origin.exclude_patterns), json.dumps([include, origin.exclude_patterns])
        else:
            keep, key = None, ""
        scan = await self._cache.localindex.scan(Path(self.path), keep=keep, filter_key=key)
        self._opened.append(scan)
        return scan

    async def content_digest(self, selectors: Sequence[Selector]) -> Digest:
        """A file that changes while it is read is looked at once more, then it is an error."""
        while True:
            scan = await self.scan()
            try:
                digest = await scan.content_digest(selectors)
            except ContextChanged as error:
                await self._look_again(scan, error)
                continue
            if scan is self._scan:
                self._given[tuple(selectors)] = digest
                self._cache.localindex.keep(scan)
                return digest

    async def _look_again(self, old: LocalScan, error: ContextChanged) -> None:
        """A new scan in place of `old`, once, and only if it leaves every digest that was given as it was."""
        async with self._looking:
            if self._scan is not old:
                return
            if len(self._opened) > 1:
                raise error
            new = await self._new_scan()
            checked: set[tuple[Selector, ...]] = set()
            while unchecked := self._given.keys() - checked:
                selectors = unchecked.pop()
                if await new.content_digest(selectors) != self._given[selectors]:
                    raise error
                checked.add(selectors)
            self._scan = new

    async def stack(self) -> tuple[str, ...]:
        async with self._copying:
            if self._stack is None:
                digest = await self.content_digest((Selector(),))
                self._stack = self._stored(f"local:{digest}") or await self._copied(f"local:{digest}")
        return self._stack

    def _stored(self, key: str) -> tuple[str, ...] | None:
        """The layer that was made of the same files before, held."""
        for record in self._cache.records.records(key):
            stack = tuple(record.payload["stack"])
            self._cache.layers.hold(stack)
            if all(self._cache.layers.exists(layer) for layer in stack):
                return stack
            self._cache.layers.release(stack)
        return None

    async def _copied(self, key: str) -> tuple[str, ...]:
        """A new layer with everything, held."""
        from worker.layers import copytree

        scan = await self.scan()

        async def copy(target: int) -> None:
            await copytree.copy(scan.root, target, _WHOLE, owner=(0, 0), visible=scan)
            check_paths(scan, (Selector(),))

        description = f"local source for {self.path}"
        made = await filled(self._cache.layers, copy, kind="source.local", description=description)
        await self._cache.records.save(key, {"stack": list(made.stack)})
        return made.stack
