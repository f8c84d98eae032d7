"""Copying the data of one open regular file to another: shared blocks where the file system can, else in the kernel.

FICLONE first (ioctl_ficlone(2): btrfs, XFS and overlays on them), holes stay holes, copy_file_range(2) for what is
large, one read and one write for what is small. This module must not know paths.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Protocol

_FICLONE = 0x40049409  # include/uapi/linux/fs.h: _IOW(0x94, 9, int)
_SMALL = 1 << 16
_STEP = 1 << 20
_MOST = 1 << 30
# "This pair of files cannot": other file systems, no reflinks, an overlay, an old kernel, a seccomp filter.
_CANNOT = frozenset((errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EIO))


class Hasher(Protocol):
    """A hash in the making."""

    def update(self, data: bytes, /) -> object: ...


class DataCopier:
    """Copies one file after another, and remembers what the file systems have refused."""

    def __init__(self) -> None:
        self._clones = True
        self._ranges = True

    def copy(self, source: int, target: int, info: os.stat_result) -> bool:
        """Copy all data of `source`, whose fstat is `info`, to the empty `target`. False when its size was another."""
        size = info.st_size
        if size <= _SMALL:
            data = os.read(source, size + 1)
            write_all(target, data)
            return len(data) == size
        if self._cloned(source, target):
            return os.fstat(target).st_size == size
        if info.st_blocks * 512 < size:
            return self._sparse(source, target, size)
        return self._range(source, target, 0, size) == size and not os.pread(source, 1, size)

    def copy_hashed(self, source: int, target: int, info: os.stat_result, hasher: Hasher) -> bool:
        """The same, giving the data to `hasher` on its way."""
        done = 0
        while data := os.read(source, min(_STEP, info.st_size - done + 1)):
            hasher.update(data)
            write_all(target, data)
            done += len(data)
        return done == info.st_size

    def _cloned(self, source: int, target: int) -> bool:
        if not self._clones:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._clones = False
            return False
        return True

    def _sparse(self, source: int, target: int, size: int) -> bool:
        """Only what lseek(2) SEEK_DATA shows."""
        position = 0
        while position < size:
            try:
                start = os.lseek(source, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # "no more data"
                    raise
                break
            position = min(os.lseek(source, start, os.SEEK_HOLE), size)
            if self._range(source, target, start, position - start) != position - start:
                return False
        os.ftruncate(target, size)
        return os.fstat(source).st_size == size

    def _range(self, source: int, target: int, offset: int, length: int) -> int:
        """How much of the range was there to be copied."""
        done = 0
        while done < length:
            step = self._step(source, target, offset + done, length - done)
            if not step:
                break
            done += step
        return done

    def _step(self, source: int, target: int, offset: int, length: int) -> int:
        if self._ranges:
            try:
                return os.copy_file_range(source, target, min(length, _MOST), offset, offset)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                self._ranges = False
        data = os.pread(source, min(length, _STEP), offset)
        done = 0
        while done < len(data):
            done += os.pwrite(target, memoryview(data)[done:], offset + done)
        return done


def write_all(fd: int, data: bytes | memoryview) -> None:
    """os.write until nothing is left."""
    done = os.write(fd, data) if data else 0
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])
