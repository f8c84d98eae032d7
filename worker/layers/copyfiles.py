"""Copies single files between two open directories, by descriptors, with all that belongs to them.

This module must not know how files are chosen or in what order they come.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import field

from blake3 import blake3

from buildengine.errors import ContextChanged, UserError
from buildengine.inroot import open_in_root
from buildengine.values import dataclass
from worker.layers import xattrs
from worker.layers.copyrules import CopiedFile, Reuse, Rules
from worker.layers.filedata import DataCopier
from worker.layers.names import Path, shown
from worker.layers.removal import remove
from worker.layers.rootpath import open_directory
from worker.layers.umask import unusual_bits

_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = frozenset((errno.ENOENT, errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTDIR))
_DEFAULT_ACL = "system.posix_acl_default"

Place = tuple[Path, bytes]  # a directory and a name in it


@dataclass(slots=True, kw_only=True)
class Opened:
    """A directory that is being copied: both its sides open (`target` -1 until it is needed), and what came of it.

    `links` are files of which another link was copied before: (here, there), to be linked when all else is done.
    `reused` is the directory that files were last linked from, and its descriptor.
    """

    source: int
    source_path: Path
    target_path: Path
    target: int = -1
    usual_owner: tuple[int, int] | None = None
    unusual_bits: int = -1
    files: list[CopiedFile] = field(default_factory=list)
    links: list[tuple[Place, Place]] = field(default_factory=list)
    reused: tuple[bytes, int] = (b"", -1)

    def close(self) -> None:
        for fd in (self.source, self.target, self.reused[1]):
            if fd >= 0:
                os.close(fd)


class FileCopier:
    """Copies one file after another into the tree below the open root `target`."""

    def __init__(self, target: int, rules: Rules) -> None:
        self._target = target
        self._rules = rules
        self._data = DataCopier()
        self._first: dict[tuple[int, int], Place] = {}
        self._usual_owner = (os.geteuid(), os.getegid())
        self._unusual_bits = unusual_bits()

    def open_target(self, at: Opened) -> None:
        """Open the target side, and see what new files get there by themselves."""
        fd = at.target = open_directory(self._target, at.target_path)
        inherits = os.fstat(fd).st_mode & stat.S_ISGID
        at.usual_owner = None if inherits else self._usual_owner
        at.unusual_bits = -1 if _DEFAULT_ACL in xattrs.list_names(fd) else self._unusual_bits

    def link(self, here: Place, there: Place) -> None:
        """Make `here` a link to the copied file `there`."""
        at = Opened(source=open_directory(self._target, there[0]), source_path=there[0], target_path=here[0])
        try:
            self.open_target(at)
            self._place(at, here[1], lambda: os.link(there[1], here[1], src_dir_fd=at.source, dst_dir_fd=at.target))
        finally:
            at.close()

    def copy(self, at: Opened, name: bytes, kind: int, to: bytes) -> None:
        """Copy `name` of the source side as `to`; `kind` is S_IFREG for a regular file, else anything."""
        if kind == stat.S_IFREG:
            if self._rules.reuse is None or not self._reused(at, name, to, self._rules.reuse):
                self._copy_regular(at, name, to)
            return
        info = os.stat(name, dir_fd=at.source, follow_symlinks=False)
        self.check_current(at, name, info)
        if stat.S_ISLNK(info.st_mode):
            link = os.readlink(name, dir_fd=at.source)
            self._place(at, to, lambda: os.symlink(link, to, dir_fd=at.target))
        else:
            # A socket is somebody's running server; its place is kept by an empty file.
            kind = stat.S_IFREG if stat.S_ISSOCK(info.st_mode) else stat.S_IFMT(info.st_mode)
            self._place(at, to, lambda: os.mknod(to, kind | 0o600, info.st_rdev, dir_fd=at.target))
        owner, time = self._rules.owner_of(info), self._rules.time_of(info)
        os.chown(to, *owner, dir_fd=at.target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(to, self._rules.mode_of(info), dir_fd=at.target)
        os.utime(to, ns=(time, time), dir_fd=at.target, follow_symlinks=False)

    def _copy_regular(self, at: Opened, name: bytes, to: bytes) -> None:
        fd = os.open(name, _SOURCE, dir_fd=at.source)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise changed(at.source_path, name)
            if info.st_nlink > 1:
                here = (at.target_path, to)
                first = self._first.setdefault((info.st_dev, info.st_ino), here)
                if first is not here:
                    self.check_current(at, name, info)
                    at.links.append((here, first))
                    return
            target = self._create(at, to, self._rules.mode_of(info) & 0o777)
            try:
                digest = self._copy_data(at, name, fd, target, info)
                self.check_current(at, name, os.fstat(fd))
                self._dress(at, fd, target, info)
            finally:
                os.close(target)
        finally:
            os.close(fd)
        if self._rules.digests:
            at.files.append(CopiedFile(b"/".join((*at.source_path, name)), info, digest))

    def _copy_data(self, at: Opened, name: bytes, fd: int, target: int, info: os.stat_result) -> bytes:
        if not self._rules.digests:
            if not self._data.copy(fd, target, info):
                raise changed(at.source_path, name)
            return b""
        hasher = blake3()
        whole = self._data.copy_hashed(fd, target, info, hasher)
        after = os.fstat(fd)
        if not whole or (after.st_mtime_ns, after.st_ctime_ns) != (info.st_mtime_ns, info.st_ctime_ns):
            raise changed(at.source_path, name)
        return hasher.digest()

    def check_directory(self, at: Opened) -> None:
        """The same for a directory of the source, whose attributes were just read."""
        if self._rules.visible is not None and at.source_path:
            *above, name = at.source_path
            if not self._rules.visible.is_current(os.fsdecode(b"/".join(at.source_path)), os.fstat(at.source)):
                raise changed(tuple(above), name)

    def check_current(self, at: Opened, name: bytes, info: os.stat_result) -> None:
        """Raises ContextChanged when `info` of an entry of the source is not what was looked at before."""
        visible = self._rules.visible
        if visible is None:
            return
        path = os.fsdecode(b"/".join((*at.source_path, name)))
        if not visible.is_current(path, info):
            raise changed(at.source_path, name)

    def _dress(self, at: Opened, source: int, target: int, info: os.stat_result) -> None:
        owner, mode, time = self._rules.owner_of(info), self._rules.mode_of(info), self._rules.time_of(info)
        if owner != at.usual_owner:
            os.fchown(target, *owner)
        if mode & at.unusual_bits:
            os.fchmod(target, mode)
        attributes = self._rules.xattrs_of(source)
        if attributes:
            xattrs.write(target, attributes)
        os.utime(target, ns=(time, time))

    def _create(self, at: Opened, name: bytes, mode: int) -> int:
        try:
            return os.open(name, _CREATE, mode, dir_fd=at.target)
        except FileExistsError:
            self._make_room(at, name)
            return os.open(name, _CREATE, mode, dir_fd=at.target)

    def _place(self, at: Opened, name: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._make_room(at, name)
            make()

    def _make_room(self, at: Opened, name: bytes) -> None:
        info = os.stat(name, dir_fd=at.target, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) and not self._rules.replace:
            path = b"/".join((*at.target_path, name))
            raise UserError(f"cannot replace the directory /{shown(path)} with a file")
        remove(at.target, name)

    def _reused(self, at: Opened, name: bytes, to: bytes, reuse: Reuse) -> bool:
        """Link the file from where it is already, if it is exactly what the copy would be."""
        found = reuse.find(b"/".join((*at.source_path, name)))
        if found is None:
            return False
        directory, _, base = found.rpartition(b"/")
        info = os.stat(name, dir_fd=at.source, follow_symlinks=False)
        self.check_current(at, name, info)
        try:
            fd = self._open_reused(at, directory, reuse)
            if not self._is_wanted(os.stat(base, dir_fd=fd, follow_symlinks=False), info):
                return False
            self._place(at, to, lambda: os.link(base, to, src_dir_fd=fd, dst_dir_fd=at.target, follow_symlinks=False))
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def _open_reused(self, at: Opened, directory: bytes, reuse: Reuse) -> int:
        if at.reused[1] < 0 or at.reused[0] != directory:
            fd = open_in_root(reuse.directory, directory, _PARENT, follow=False)
            if at.reused[1] >= 0:
                os.close(at.reused[1])
            at.reused = (directory, fd)
        return at.reused[1]

    def _is_wanted(self, there: os.stat_result, info: os.stat_result) -> bool:
        rules = self._rules
        return (
            there.st_mode == stat.S_IFREG | rules.mode_of(info)
            and (there.st_uid, there.st_gid) == rules.owner_of(info)
            and there.st_mtime_ns == rules.time_of(info)
            and there.st_size == info.st_size
        )


def changed(directory: Path, name: bytes) -> ContextChanged:
    return ContextChanged(shown(b"/".join((*directory, name))))
