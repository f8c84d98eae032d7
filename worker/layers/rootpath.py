"""Paths that a file action names, resolved and made inside a root directory.

`resolve` answers where a path leads, every symlink followed inside the root and the part that does not exist yet
taken as it is spelled: where a copy would go. What it returns has no symlinks, so opening it later is only a walk.
This module must not know actions.
"""

from __future__ import annotations

import errno
import os
from collections import deque

from buildengine.errors import UserError
from buildengine.inroot import open_in_root
from buildengine.values import dataclass
from worker.layers.names import Path, shown

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What a new directory gets: None leaves our own ids and the current time. `timestamp` is in nanoseconds."""

    owner: tuple[int, int] | None = None
    timestamp: int | None = None


def resolve(root: int, path: str | bytes, *, follow_last: bool = True) -> Path:
    """The components `path` leads to inside `root`. `follow_last=False` stops at a symlink in the last place.

    Raises NotADirectoryError when it goes through a file, UserError when symlinks go in circles.
    """
    pending, resolved, links = deque(_spelled(path)), list[bytes](), 0
    fd = os.open(".", DIRECTORY, dir_fd=root)
    missing = False
    try:
        while pending:
            name = pending.popleft()
            if name == b"..":
                del resolved[-1:]
                fd, missing = _reopen(root, fd, resolved)
                continue
            target = None if missing else _read_link(fd, name)
            if target is None or (not pending and not follow_last):
                resolved.append(name)
                if pending and not missing:
                    fd, missing = _enter(fd, name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise UserError(f"too many symbolic links on the way to {_text(path)}", hint="they go in circles")
            pending.extendleft(reversed(_spelled(target)))
            if target.startswith(b"/"):
                resolved.clear()
                fd, missing = _reopen(root, fd, resolved)
    finally:
        os.close(fd)
    return tuple(resolved)


def lstat(root: int, path: Path) -> os.stat_result | None:
    """What is at a resolved path; None when nothing is, also when a file is in the way."""
    try:
        fd = open_in_root(root, b"/".join(path), os.O_PATH, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def open_directory(root: int, path: Path) -> int:
    """Open the directory at a resolved path, for reading and for use as dir_fd."""
    return open_in_root(root, b"/".join(path), DIRECTORY, follow=False)


def make_directories(root: int, path: Path, mode: int, given: Ownership) -> list[Path]:
    """Make the directories of a resolved path that are missing; those that it made, outermost first."""
    made: list[Path] = []
    fd = os.open(".", DIRECTORY, dir_fd=root)
    try:
        for depth, name in enumerate(path, 1):
            try:
                os.mkdir(name, 0o700, dir_fd=fd)
                fresh = True
            except FileExistsError:
                fresh = False
            try:
                fd = _swap(fd, os.open(name, DIRECTORY, dir_fd=fd))
            except NotADirectoryError:
                raise UserError(f"/{shown(b'/'.join(path[:depth]))} is not a directory") from None
            if fresh:
                _dress(fd, mode, given)
                made.append(path[:depth])
    finally:
        os.close(fd)
    return made


def set_times(root: int, paths: list[Path], timestamp: int) -> None:
    """Set the time of directories again after they have been filled."""
    for path in reversed(paths):
        fd = open_directory(root, path)
        try:
            os.utime(fd, ns=(timestamp, timestamp))
        finally:
            os.close(fd)


def _dress(fd: int, mode: int, given: Ownership) -> None:
    if given.owner is not None:
        os.fchown(fd, *given.owner)
    os.fchmod(fd, mode)
    if given.timestamp is not None:
        os.utime(fd, ns=(given.timestamp, given.timestamp))


def _spelled(path: str | bytes) -> list[bytes]:
    return [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]


def _read_link(fd: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # "is not a symbolic link"
            return None
        raise


def _enter(fd: int, name: bytes) -> tuple[int, bool]:
    """The descriptor of the next component, and whether it is missing."""
    try:
        inner = os.open(name, _HANDLE, dir_fd=fd)
    except FileNotFoundError:
        return fd, True
    return _swap(fd, inner), False


def _reopen(root: int, fd: int, path: list[bytes]) -> tuple[int, bool]:
    try:
        inner = open_in_root(root, b"/".join(path), _HANDLE, follow=False)
    except FileNotFoundError:
        return fd, True
    return _swap(fd, inner), False


def _swap(old: int, new: int) -> int:
    os.close(old)
    return new


def _text(path: str | bytes) -> str:
    return shown(os.fsencode(path))
