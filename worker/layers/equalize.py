"""Makes one tree equal to another, touching only what differs: on a writable overlay, that is their difference.

Two files are equal when kind, owner, mode, time, attributes and contents are. This module must not know layers.
"""

from __future__ import annotations

import os
import stat

from worker.layers import xattrs
from worker.layers.copyfiles import FileCopier, Opened
from worker.layers.copyrules import Rules
from worker.layers.names import Path
from worker.layers.removal import remove
from worker.layers.rootpath import open_directory

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP = 1 << 20


def make_equal(target: int, wanted: int) -> None:
    """Change the tree below the open root `target` until it equals that below `wanted`."""
    copier = FileCopier(target, Rules(replace=True))
    waiting: list[Path] = [()]
    visited: list[Path] = []
    while waiting:
        path = waiting.pop()
        visited.append(path)
        at = Opened(source=open_directory(wanted, path), source_path=path, target_path=path)
        try:
            copier.open_target(at)
            waiting += [(*path, name) for name in _equalize(copier, at)]
            for here, there in at.links:
                copier.link(here, there)
        finally:
            at.close()
    for path in reversed(visited):  # a directory's time changes with what is made in it
        _dress(target, wanted, path)


def _equalize(copier: FileCopier, at: Opened) -> list[bytes]:
    """Make the entries of one directory equal; the names of its subdirectories."""
    present = {os.fsencode(name) for name in os.listdir(at.target)}
    names = sorted(os.fsencode(name) for name in os.listdir(at.source))
    for name in sorted(present.difference(names)):
        remove(at.target, name)
    directories = []
    for name in names:
        info = os.stat(name, dir_fd=at.source, follow_symlinks=False)
        there = os.stat(name, dir_fd=at.target, follow_symlinks=False) if name in present else None
        if stat.S_ISDIR(info.st_mode):
            directories.append(name)
            if there is None or not stat.S_ISDIR(there.st_mode):
                if there is not None:
                    remove(at.target, name)
                os.mkdir(name, 0o700, dir_fd=at.target)
        elif there is None or not _is_same(at, name, info, there):
            copier.copy(at, name, stat.S_IFMT(info.st_mode), name)
    return directories


def _is_same(at: Opened, name: bytes, info: os.stat_result, there: os.stat_result) -> bool:
    if _attributes(info) != _attributes(there) or info.st_size != there.st_size or info.st_rdev != there.st_rdev:
        return False
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(name, dir_fd=at.source) == os.readlink(name, dir_fd=at.target)
    if not stat.S_ISREG(info.st_mode):
        return True
    one, other = os.open(name, _FILE, dir_fd=at.source), os.open(name, _FILE, dir_fd=at.target)
    try:
        return xattrs.read(one) == xattrs.read(other) and _same_bytes(one, other)
    finally:
        os.close(one)
        os.close(other)


def _attributes(info: os.stat_result) -> tuple[int, int, int, int]:
    return info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns


def _same_bytes(one: int, other: int) -> bool:
    while True:
        data = os.read(one, _STEP)
        if data != os.read(other, len(data) or 1):
            return False
        if not data:
            return True


def _dress(target: int, wanted: int, path: Path) -> None:
    source, fd = open_directory(wanted, path), open_directory(target, path)
    try:
        info, there = os.fstat(source), os.fstat(fd)
        attributes = xattrs.read(source)
        if _attributes(info) == _attributes(there) and attributes == xattrs.read(fd):
            return
        os.fchown(fd, info.st_uid, info.st_gid)
        os.fchmod(fd, stat.S_IMODE(info.st_mode))
        xattrs.write(fd, attributes)
        os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
    finally:
        os.close(source)
        os.close(fd)
