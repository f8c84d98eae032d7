"""Trees for the cache's tests: written from a description, and read back as a value that can be compared."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from cache.filehash import xattrs_of


def write(directory: int, tree: Mapping[str, object]) -> None:
    """Make files (bytes), symlinks (str), directories (mappings) and deletions (None)."""
    for name, value in tree.items():
        if value is None:
            remove(directory, name)
        elif isinstance(value, bytes):
            write_file(directory, name, value)
        elif isinstance(value, str):
            os.symlink(value, name, dir_fd=directory)
        elif isinstance(value, Mapping):
            if not exists(directory, name):
                os.mkdir(name, dir_fd=directory)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
            write(fd, value)
            os.close(fd)


def write_file(directory: int, name: str, data: bytes, mode: int = 0o644) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode, dir_fd=directory)
    os.write(fd, data)
    os.close(fd)


def exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove(directory: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    for inner in os.listdir(fd):
        remove(fd, inner)
    os.close(fd)
    os.rmdir(name, dir_fd=directory)


def manifest(directory: int, path: str = "", *, links: bool = True) -> dict[str, Any]:
    """path -> everything about it that a layer keeps. Files that are linked to each other say so."""
    found: dict[str, Any] = {}
    names: dict[int, list[str]] = {}
    _add(directory, path, found, names)
    for linked in names.values():
        for name in linked:
            found[name] = (*found[name], tuple(linked) if links and len(linked) > 1 else ())
    return found


def _add(directory: int, path: str, found: dict[str, Any], names: dict[int, list[str]]) -> None:
    info = os.fstat(directory)
    found[path or "."] = ("dir", stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, xattrs_of(directory))
    for name in sorted(os.listdir(directory)):
        below = f"{path}/{name}" if path else name
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            _add(fd, below, found, names)
            os.close(fd)
            continue
        content: object = info.st_rdev
        if stat.S_ISREG(info.st_mode):
            fd = os.open(name, os.O_RDONLY, dir_fd=directory)
            content = (os.read(fd, info.st_size + 1), xattrs_of(fd))
            os.close(fd)
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(name, dir_fd=directory)
        names.setdefault(info.st_ino, []).append(below)
        owner = info.st_uid, info.st_gid
        found[below] = (stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), owner, content, info.st_mtime_ns)
