"""LLB's other file actions: make a directory or file, remove, make a symlink; each inside one open root.

Every path is resolved inside the root; its last component is followed for mkdir and mkfile, as BuildKit does, never for
rm and symlink. Synchronous and short: the caller offloads. This module must not know names of users.
"""

from __future__ import annotations

import os
import stat

from buildengine.errors import ContextError, UserError
from llb.ops import MkDir, MkFile, Remove, Symlink
from llb.paths import clean
from worker.layers.failures import explained
from worker.layers.filedata import write_all
from worker.layers.names import Path
from worker.layers.removal import remove as remove_entry
from worker.layers.rootpath import Ownership, lstat, make_directories, open_directory, resolve
from worker.layers.select import matches

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_Owner = tuple[int, int] | None


def mkdir(root: int, action: MkDir, owner: _Owner = None) -> None:
    """Make a directory; one that exists stays as it is."""
    given = Ownership(owner=owner, timestamp=_timestamp(action.timestamp))
    with explained(f"cannot make the directory {action.path}"):
        path = resolve(root, action.path)
        if not action.make_parents and path and lstat(root, path[:-1]) is None:
            raise UserError(f"cannot make {action.path}: its directory does not exist")
        make_directories(root, path, action.mode & 0o777, given)


def mkfile(root: int, action: MkFile, owner: _Owner = None) -> None:
    """Make a file, or replace the contents of one, which keeps its mode. Its directory must exist."""
    with explained(f"cannot make the file {action.path}"):
        path = resolve(root, action.path)
        there = lstat(root, path)
        if there is not None and not stat.S_ISREG(there.st_mode):
            raise UserError(f"cannot make the file {action.path}: something else has this name")
        parent, name = _parent(root, path, action.path)
        try:
            fd = os.open(name, _WRITE, 0o600, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            write_all(fd, action.data)
            if owner is not None:
                os.fchown(fd, *owner)
            if there is None:
                os.fchmod(fd, action.mode & 0o777)
            if action.timestamp >= 0:
                os.utime(fd, ns=(action.timestamp, action.timestamp))
        finally:
            os.close(fd)


def symlink(root: int, action: Symlink, owner: _Owner = None) -> None:
    """Make a symlink `newpath` that says `oldpath`. Nothing may be there."""
    with explained(f"cannot make the symbolic link {action.newpath}"):
        parent, name = _parent(root, resolve(root, action.newpath, follow_last=False), action.newpath)
        try:
            os.symlink(os.fsencode(action.oldpath), name, dir_fd=parent)
            if owner is not None:
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
            if action.timestamp >= 0:
                os.utime(name, ns=(action.timestamp, action.timestamp), dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)


def remove(root: int, action: Remove) -> None:
    """Remove a file or a whole directory; a symlink itself, not what it leads to."""
    with explained(f"cannot remove {action.path}"):
        for path in matches(root, clean(f"/{action.path}"), wildcards=action.allow_wildcard, follow=False):
            _remove(root, path, action.allow_not_found)


def _remove(root: int, path: str, missing_ok: bool) -> None:
    try:
        parent, name = _parent(root, resolve(root, path, follow_last=False), path)
    except (FileNotFoundError, NotADirectoryError):
        _check_missing(path, missing_ok)
        return
    try:
        remove_entry(parent, name)
    except FileNotFoundError:
        _check_missing(path, missing_ok)
    finally:
        os.close(parent)


def _check_missing(path: str, missing_ok: bool) -> None:
    if not missing_ok:
        raise ContextError(f"cannot remove {path}: it does not exist")


def _parent(root: int, path: Path, spelled: str) -> tuple[int, bytes]:
    """The open directory of a resolved path, and the name in it."""
    if not path:
        raise UserError(f"{spelled!r} is the root itself")
    return open_directory(root, path[:-1]), path[-1]


def _timestamp(value: int) -> int | None:
    return value if value >= 0 else None
