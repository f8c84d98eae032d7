"""The directory that an exporter writes into: made and opened, and, where that is asked for, rid of what is strange.

It knows directories, not images.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from buildengine.values import dataclass
from worker.layers.names import Path
from worker.layers.removal import remove
from worker.layers.rootpath import lstat, open_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A tree (an open root) that was copied into the directory `below` of the destination."""

    root: int
    below: Path


def make_directory(path: str) -> int:
    """Make `path` with its parents where they are missing, and open it. Raises OSError."""
    os.makedirs(path, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def remove_others(target: int, trees: Sequence[Copied]) -> None:
    """Delete below the open directory `target` whatever none of the trees has. Raises OSError.

    Nothing is followed: only directories that are real ones, here and in a tree, are looked into.
    """
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        kept = {name for tree in trees for name in _names(tree, path)}
        fd = open_directory(target, path)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                if name not in kept:
                    remove(fd, name)
                elif stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    waiting.append((*path, name))
        finally:
            os.close(fd)


def _names(tree: Copied, path: Path) -> Iterator[bytes]:
    """What the tree has, or leads to, in the directory `path` of the destination."""
    depth = len(path)
    if depth < len(tree.below):
        if tree.below[:depth] == path:
            yield tree.below[depth]
        return
    inside = path[len(tree.below) :]
    info = lstat(tree.root, inside) if path[: len(tree.below)] == tree.below else None
    if info is not None and stat.S_ISDIR(info.st_mode):
        fd = open_directory(tree.root, inside)
        try:
            yield from map(os.fsencode, os.listdir(fd))
        finally:
            os.close(fd)
