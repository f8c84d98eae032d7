"""Deleting directories that a build filled: of any depth, whatever their names and modes, following nothing.

A subdirectory is moved up beside the others before it is emptied. So no path grows long, no recursion deep, and
one descriptor is enough at any depth.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(directory: Path) -> None:
    """Delete `directory` and all below it. Already gone, or going in another process at the same time, is fine."""
    try:
        top = os.open(directory, _OPEN)
    except FileNotFoundError:
        return
    try:
        while not _removed(directory):
            _empty(top)
    finally:
        os.close(top)


def _removed(directory: Path) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _empty(top: int) -> None:
    waiting = _unlink_files(top)
    counter = 0
    while waiting:
        name = waiting.pop()
        try:
            fd = os.open(name, _OPEN, dir_fd=top)
        except FileNotFoundError:
            continue
        try:
            for inner in _unlink_files(fd):
                counter += 1
                waiting.append(_move_up(inner, fd, top, counter))
        finally:
            os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=top)


def _unlink_files(fd: int) -> list[str]:
    """Delete all but directories; the names of the directories."""
    directories = []
    with os.scandir(fd) as scan:
        entries = list(scan)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            directories.append(entry.name)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=fd)
    return directories


def _move_up(name: str, fd: int, top: int, number: int) -> str:
    target = f".removed-{os.getpid()}-{number}"
    try:
        os.rename(name, target, src_dir_fd=fd, dst_dir_fd=top)
    except FileNotFoundError:
        return name
    except OSError:  # taken by an entry of that name: not empty, or not a directory
        return _move_up(name, fd, top, number + 1_000_000_000)
    return target
