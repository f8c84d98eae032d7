"""Finding, and making, the directory that an archive's entry goes into.

Names are walked one component at a time from the root's descriptor, no symlink is ever left to the kernel: a
component that is a symlink is read and walked in its place, from the root when it is absolute. So nothing can lead
out, and a component that only a lower layer has is seen too: its directory is made here with the same attributes,
its symlink is followed (what tar does when it extracts onto the whole tree).

This module must not know what the entries are.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable

from buildengine.errors import SourceError
from buildengine.inroot import open_in_root
from buildengine.values import dataclass
from cache.overlay import OPAQUE_XATTR
from worker.layers import xattrs
from worker.layers.fileinfo import header_of, is_whiteout
from worker.layers.lowers import LowerStack
from worker.layers.names import Path, parts_of, shown
from worker.layers.tar import Kind, TarHeader

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel, path_resolution(7)
_MAX_OPEN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """An open directory of the tree; `path` has no symlinks in it. It stays open until the second next `of`."""

    fd: int
    path: Path


class Parents:
    """The directories of one tree, the last ones used kept open.

    `made(path, header)` is told of each directory that had to be made without an entry of its own.
    """

    def __init__(self, root: int, lowers: LowerStack, made: Callable[[Path, TarHeader], None]) -> None:
        self._root = root
        self._lowers = lowers
        self._made = made
        self._open: dict[bytes, Parent] = {}
        self._retired: list[Parent] = []
        self._opaque: set[Path] = set()

    def of(self, name: bytes) -> tuple[Parent, bytes]:
        """The parent of the entry `name`, and its last component: empty when it is the root itself."""
        if self._retired:
            self._close_retired()
        raw, _, base = name.rpartition(b"/")
        parent = self._open.get(raw)
        if parent is not None and base not in (b"", b".", b"..") and len(base) < 256 and len(name) < 4096:
            return parent, base
        parts = parts_of(name)
        if not parts:
            return self._at(b"", ()), b""
        # A clean name is remembered as it is spelled, any other one as it is meant.
        return self._at(raw if base == parts[-1] else b"/".join(parts[:-1]), parts[:-1]), parts[-1]

    def hide_lowers(self, path: Path, fd: int) -> None:
        """Make the directory opaque: nothing of the lower layers shows through."""
        os.setxattr(fd, OPAQUE_XATTR, b"y")
        self._opaque.add(path)

    def shown_again(self, path: Path) -> None:
        """The directory is gone, and with it that it was opaque."""
        self._opaque.discard(path)

    @property
    def hides_any(self) -> bool:
        return bool(self._opaque)

    def is_hidden(self, path: Path) -> bool:
        """Whether an opaque directory above `path` hides what lower layers have there."""
        return bool(self._opaque) and any(path[:depth] in self._opaque for depth in range(1, len(path)))

    def forget(self) -> None:
        """To be called when a directory or symlink has been replaced: names may lead elsewhere now."""
        self._retired += self._open.values()
        self._open.clear()

    def close(self) -> None:
        """Close every descriptor."""
        self.forget()
        self._close_retired()

    def _close_retired(self) -> None:
        for parent in self._retired:
            os.close(parent.fd)
        self._retired.clear()

    def _at(self, key: bytes, parts: Path) -> Parent:
        if len(self._open) >= _MAX_OPEN:
            self.forget()
        fd, path = self._walk(parts)
        stale = self._open.pop(key, None)
        if stale is not None:
            self._retired.append(stale)
        parent = self._open[key] = Parent(fd=fd, path=path)
        return parent

    def _walk(self, parts: Path) -> tuple[int, Path]:
        pending, resolved, links = deque(parts), list[bytes](), 0
        fd = os.dup(self._root)
        try:
            while pending:
                name = pending.popleft()
                if name in (b"", b".", b".."):  # from a symlink
                    if name == b".." and resolved:
                        resolved.pop()
                        fd = _swap(fd, open_in_root(self._root, b"/".join(resolved), _DIRECTORY))
                    continue
                target = self._target(fd, (*resolved, name))
                if target is None:
                    fd = _swap(fd, os.open(name, _DIRECTORY, dir_fd=fd))
                    resolved.append(name)
                    continue
                links += 1
                if links > _MAX_LINKS:
                    raise SourceError(f"too many symbolic links on the way to {shown(b'/'.join(parts))}")
                pending.extendleft(reversed(target.split(b"/")))
                if target.startswith(b"/"):
                    resolved.clear()
                    fd = _swap(fd, os.dup(self._root))
        except BaseException:
            os.close(fd)
            raise
        return fd, tuple(resolved)

    def _target(self, fd: int, path: Path) -> bytes | None:
        """What the last component leads to if it is a symlink; None when it is, or has become, a directory."""
        name = path[-1]
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return self._below(fd, path)
        if stat.S_ISDIR(info.st_mode):
            return None
        if stat.S_ISLNK(info.st_mode):
            return os.readlink(name, dir_fd=fd)
        if not is_whiteout(info):
            raise _not_a_directory(path)
        os.unlink(name, dir_fd=fd)
        self._make(fd, path, TarHeader(name=name, kind=Kind.DIRECTORY, mode=0o755))
        self.hide_lowers_of(fd, path)
        return None

    def hide_lowers_of(self, parent: int, path: Path) -> None:
        """`hide_lowers` for the last component of `path`, a directory in the open directory `parent`."""
        fd = os.open(path[-1], _DIRECTORY, dir_fd=parent)
        try:
            self.hide_lowers(path, fd)
        finally:
            os.close(fd)

    def _below(self, fd: int, path: Path) -> bytes | None:
        """The same for a component that the layer itself does not have."""
        found = None if self.is_hidden(path) else self._lowers.find(path)
        if found is None:
            self._make(fd, path, TarHeader(name=path[-1], kind=Kind.DIRECTORY, mode=0o755))
            return None
        try:
            if stat.S_ISLNK(found.info.st_mode):
                return os.readlink(found.name, dir_fd=found.directory)
            if not stat.S_ISDIR(found.info.st_mode):
                raise _not_a_directory(path)
            self._make(fd, path, _like(found.directory, found.name))
        finally:
            found.close()
        return None

    def _make(self, fd: int, path: Path, header: TarHeader) -> None:
        os.mkdir(path[-1], 0o700, dir_fd=fd)
        self._made(path, header)


def _like(directory: int, name: bytes) -> TarHeader:
    """The attributes of a directory, as the header of an entry that would make it."""
    fd = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        return header_of(name, os.fstat(fd), attributes=xattrs.read(fd))
    finally:
        os.close(fd)


def _swap(old: int, new: int) -> int:
    os.close(old)
    return new


def _not_a_directory(path: Path) -> SourceError:
    return SourceError(f"the archive puts an entry below {shown(b'/'.join(path))}, which is not a directory")
