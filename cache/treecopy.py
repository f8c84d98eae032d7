"""Copying files and directories between directory descriptors, with everything that a layer can hold.

Owner, mode, times, extended attributes, devices, holes and hard links survive. Data is shared where the file
system can (FICLONE), otherwise copied inside the kernel. A name is always one component under an open
directory, and nothing is followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Mapping

from buildengine.values import dataclass

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CHUNK = 1 << 30
_OVERLAY = "trusted.overlay."  # overlayfs's own notes on its layers are no part of the tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a directory has beside its entries. Applied after them: making an entry changes the times."""

    mode: int
    uid: int
    gid: int
    times: tuple[int, int]
    xattrs: Mapping[str, bytes]

    def apply(self, fd: int) -> None:
        os.fchown(fd, self.uid, self.gid)
        os.fchmod(fd, self.mode)
        for name, value in self.xattrs.items():
            os.setxattr(fd, name, value)
        os.utime(fd, ns=self.times)


def attributes(fd: int) -> Attributes:
    """Those of an open file or directory."""
    info = os.fstat(fd)
    return Attributes(
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        times=(info.st_atime_ns, info.st_mtime_ns),
        xattrs=xattrs(f"/proc/self/fd/{fd}"),
    )


class Copier:
    """Copies into one tree, whose root is `root`: it remembers hard links, and that the disk cannot clone."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._links: dict[tuple[int, int], str] = {}
        self._can_clone = True

    def copy(self, name: str, info: os.stat_result, source: int, target: int, path: str) -> None:
        """Copy what is no directory from under `source` to under `target`; `path` is its path from the root."""
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first != path:
                os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(info.st_mode):
            self._copy_file(name, source, target)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        for key, value in xattrs(f"/proc/self/fd/{source}/{name}").items():
            os.setxattr(f"/proc/self/fd/{target}/{name}", key, value, follow_symlinks=False)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def link(self, name: str, info: os.stat_result, source: int, target: int, path: str) -> None:
        """A hard link to it, and a copy where none can be made."""
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EXDEV, errno.EPERM):
                raise
            self.copy(name, info, source, target, path)

    def _copy_file(self, name: str, source: int, target: int) -> None:
        read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            write = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                size = os.fstat(read).st_size
                if size and not self._clone(read, write):
                    copy_data(read, write, size)
                attributes(read).apply(write)
            finally:
                os.close(write)
        finally:
            os.close(read)

    def _clone(self, read: int, write: int) -> bool:
        if self._can_clone:
            try:
                fcntl.ioctl(write, _FICLONE, read)
                return True
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS):
                    raise
                self._can_clone = False
        return False


def copy_data(read: int, write: int, size: int) -> None:
    """The bytes of `read`, with its holes as holes. Both files at offset 0, `write` empty."""
    os.ftruncate(write, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(read, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            raise
        end = os.lseek(read, start, os.SEEK_HOLE)
        _copy_range(read, write, start, end)


def _copy_range(read: int, write: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(read, write, min(end - start, _CHUNK), start, start)
        except OSError as error:
            # Across file systems, or where the kernel has no in-kernel copy for them (copy_file_range(2)).
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
                raise
            count = os.pwrite(write, os.pread(read, min(end - start, 1 << 20), start), start)
        if not count:
            return  # the file shrank
        start += count


def drop_overlay_xattrs(name: str, directory: int) -> None:
    """Take away from a file what only overlayfs may write."""
    path = f"/proc/self/fd/{directory}/{name}"
    for key in _list(path):
        if key.startswith(_OVERLAY):
            with contextlib.suppress(OSError):
                os.removexattr(path, key, follow_symlinks=False)


def xattrs(path: str) -> dict[str, bytes]:
    """`path` is a descriptor under /proc, or one name under one: os.listxattr takes no directory descriptor."""
    follow = path.count("/") == 4  # the descriptor itself is a magic link
    return {
        key: os.getxattr(path, key, follow_symlinks=follow)
        for key in _list(path, follow=follow)
        if not key.startswith(_OVERLAY)
    }


def _list(path: str, *, follow: bool = False) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            return []
        raise
