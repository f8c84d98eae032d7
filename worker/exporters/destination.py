"""The directory that an exporter writes into: made and opened, and, where that is asked for, rid of what is strange.

It knows directories, not images.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

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


def write_file(target: int, path: Path, data: bytes, moment: int) -> None:
    """A file for its owner alone, instead of one that is there. `moment` is its time, in seconds. Raises OSError."""
    directory = open_directory(target, path[:-1])
    try:
        with suppress(FileNotFoundError):
            os.unlink(path[-1], dir_fd=directory)
        fd = os.open(path[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.utime(fd, (moment, moment))
    finally:
        os.close(directory)


def remove_others(target: int, trees: Sequence[Copied], kept: Collection[Path] = ()) -> None:
    """Delete below the open directory `target` whatever none of the trees has, but what is `kept`. Raises OSError.

    Nothing is followed: only directories that are real ones, here and in a tree, are looked into.
    """
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        known = {name for tree in trees for name in _names(tree, path)}
        known.update(one[-1] for one in kept if one[:-1] == path)
        fd = open_directory(target, path)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                if name not in known:
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
