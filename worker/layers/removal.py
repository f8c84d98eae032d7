"""Deleting a file or a whole directory inside an open directory: nothing is followed, any depth needs two descriptors.

Unlike the store's own removal this also works on a mounted overlay, where directories cannot be renamed. The tree
must not be changed by others meanwhile: it goes back up through `..`, and stops if that is not where it came from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from buildengine.errors import InternalError
from worker.layers.names import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Identity = tuple[int, int]


def remove(parent: int, name: bytes, removed: Callable[[Path], None] | None = None) -> None:
    """Delete `name` in the open directory `parent`, whatever it is; `removed` hears of every directory that went.

    Raises OSError, FileNotFoundError when there is nothing of that name.
    """
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    fd = os.open(name, _OPEN, dir_fd=parent)
    names, waiting, above = [name], [_unlink_files(fd)], list[_Identity]()
    try:
        while waiting[-1] or above:
            if waiting[-1]:
                child = waiting[-1].pop()
                above.append(_identity(fd))
                fd = _swap(fd, os.open(child, _OPEN, dir_fd=fd))
                names.append(child)
                waiting.append(_unlink_files(fd))
                continue
            fd = _swap(fd, os.open("..", _OPEN, dir_fd=fd))
            if _identity(fd) != above.pop():
                raise InternalError("a directory was moved while its tree was being deleted")
            waiting.pop()
            if removed is not None:
                removed(tuple(names))
            os.rmdir(names.pop(), dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
    if removed is not None:
        removed((name,))


def _unlink_files(fd: int) -> list[bytes]:
    """Delete all but directories; the names of the directories."""
    directories = []
    with os.scandir(fd) as scan:
        entries = list(scan)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            directories.append(os.fsencode(entry.name))
        else:
            os.unlink(entry.name, dir_fd=fd)
    return directories


def _identity(fd: int) -> _Identity:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _swap(old: int, new: int) -> int:
    os.close(old)
    return new
