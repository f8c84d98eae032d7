"""How a stack of layers becomes a tree to look at, and a tree to write to becomes a layer: a Protocol, two ways.

    overlay   the kernel does it; a writable tree is an overlay whose upper directory is the new layer itself
    copy      for hosts without overlayfs: whole trees under trees/, and a comparison afterwards

Both leave the same layers, in overlay upper format, so a store can be used with either. One difference stays: a
step that writes to one of several hard links to a file of the base changes them all in a copy, as it should, while
overlayfs (index=off) copies up that one name. Nothing here mounts: what
comes out is a `TreeMount`. Methods block (the copying ones for long): callers use a thread. Knows no table of
layers and no locks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from cache.copying import Before, extract, remember
from cache.overlay import TreeMount, once
from cache.removal import remove_tree
from cache.trees import Views, write_tree

_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})
MAX_LOWERS = 500  # include/uapi and fs/overlayfs/params.h: OVL_MAX_STACK
_FLATTENED = 400  # of a deeper stack, so many of the lowest layers become one directory


class Snapshotter(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def quick(self) -> bool:
        """Whether `begin` and `finish` take no longer than a transaction does."""
        ...

    def view(self, stack: Sequence[str], *, plain: bool, strays: Mapping[str, Sequence[str]] = _NONE) -> TreeMount:
        """The tree, read-only. `plain`: a single layer that was made on nothing, so it holds no whiteouts.

        `strays` are the layers that may have whiteouts which hide nothing here, or hide too much (`Views.stray`).
        """
        ...

    def begin(self, id: str, stack: Sequence[str], *, strays: Mapping[str, Sequence[str]] = _NONE) -> TreeMount:
        """A writable tree on top of `stack`; what changes in it becomes layer `id`. Makes layers/<id>/fs."""
        ...

    def finish(self, id: str) -> None:
        """Nobody has the tree mounted any more: layers/<id>/fs now holds the changes."""
        ...

    def discard(self, id: str) -> None:
        """Throw the writable tree away."""
        ...


class OverlaySnapshots:
    name = "overlay"
    quick = True

    def __init__(self, root: Path, views: Views) -> None:
        self._layers = root / "layers"
        self._views = views

    def view(self, stack: Sequence[str], *, plain: bool, strays: Mapping[str, Sequence[str]] = _NONE) -> TreeMount:
        lowers = self._lowers(stack, strays)
        if len(lowers) == 1 and not plain:
            lowers = (*lowers, str(self._views.empty))  # an overlay, which hides whiteouts; a bind would show them
        return TreeMount(lowers=lowers)

    def begin(self, id: str, stack: Sequence[str], *, strays: Mapping[str, Sequence[str]] = _NONE) -> TreeMount:
        directory = make_layer(self._layers / id, self._views.layer(stack[-1]) if stack else None)
        if not stack:
            return TreeMount(upper=str(directory))
        work = self._layers / id / "work"
        work.mkdir(0o700)
        return TreeMount(lowers=self._lowers(stack, strays), upper=str(directory), work=str(work))

    def finish(self, id: str) -> None:
        """The work directory stays, as containerd leaves its own: ext4 takes 2 ms to remove a directory."""

    def discard(self, id: str) -> None:
        remove_tree(self._layers / id)

    def _lowers(self, stack: Sequence[str], strays: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        stack = once(stack)  # overlayfs takes none twice
        flat = 0
        while len(stack) - flat >= MAX_LOWERS:  # one is left for the empty directory, or the upper one
            flat += _FLATTENED
        shown = [
            self._views.stray(stack[: position + 1], strays[id]) if id in strays else self._views.layer(id)
            for position, id in enumerate(stack)
            if position >= flat
        ]
        base = [str(self._views.of(stack[:flat]))] if flat else []
        return (*map(str, reversed(shown)), *base)


class CopySnapshots:
    name = "copy"
    quick = False

    def __init__(self, root: Path, views: Views) -> None:
        self._layers = root / "layers"
        self._trees = root / "trees"
        self._views = views
        self._before: dict[str, Before] = {}

    def view(self, stack: Sequence[str], *, plain: bool, strays: Mapping[str, Sequence[str]] = _NONE) -> TreeMount:
        if not stack:
            return TreeMount()
        return TreeMount(lowers=(str(self._views.layer(stack[0]) if plain else self._views.of(stack)),))

    def begin(self, id: str, stack: Sequence[str], *, strays: Mapping[str, Sequence[str]] = _NONE) -> TreeMount:
        directory = make_layer(self._layers / id, self._views.layer(stack[-1]) if stack else None)
        if not stack:
            return TreeMount(upper=str(directory))
        tree = self._trees / id
        write_tree([self._views.layer(layer) for layer in reversed(stack)], tree, link=False)
        self._before[id] = remember(tree)
        return TreeMount(upper=str(tree))

    def finish(self, id: str) -> None:
        before = self._before.pop(id, None)
        if before is not None:
            extract(self._trees / id, before, self._layers / id / "fs")
            remove_tree(self._trees / id)

    def discard(self, id: str) -> None:
        self._before.pop(id, None)
        remove_tree(self._trees / id)
        remove_tree(self._layers / id)


def make_layer(layer: Path, below: Path | None) -> Path:
    """The directory of a new layer. Its root is the root of the tree, so it looks like the one below."""
    directory = layer / "fs"
    layer.mkdir(mode=0o700)
    directory.mkdir(mode=0o755)
    if below is None or not below.is_dir():
        directory.chmod(0o755)
        return directory
    info = below.stat()
    os.chown(directory, info.st_uid, info.st_gid)
    directory.chmod(stat.S_IMODE(info.st_mode))
    os.utime(directory, ns=(info.st_atime_ns, info.st_mtime_ns))
    return directory
