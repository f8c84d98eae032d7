"""A tree to hash that is an open directory: layers mounted by the caller, which nobody writes to any more.

`FileDigests` remembers the digest of a file by inode, ctime and size. Layers are immutable and lie in one file
system, and overlayfs shows the inode of the layer's file, so that names the bytes, in whatever stack they appear.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from buildengine.errors import UserError
from buildengine.inroot import open_in_root
from cache import filehash
from cache.hashtree import Place, resolve

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_STAMP = struct.Struct(">QqQ")


class FileDigests:
    """What is known of files (stamp -> extended attributes and digest), and what was newly found out."""

    __slots__ = ("_known", "new")

    def __init__(self, known: Mapping[bytes, bytes] | None = None) -> None:
        self._known = known or {}
        self.new: dict[bytes, bytes] = {}

    def get(self, info: os.stat_result) -> bytes | None:
        return self._known.get(_STAMP.pack(info.st_ino, info.st_ctime_ns, info.st_size))

    def add(self, info: os.stat_result, value: bytes) -> None:
        self.new[_STAMP.pack(info.st_ino, info.st_ctime_ns, info.st_size)] = value


class FdTree:
    """`cache.hashtree.Tree`. `root` stays the caller's."""

    def __init__(self, root: int, files: FileDigests | None = None) -> None:
        self._root = root
        self._files = files or FileDigests()

    def resolve(self, path: str, *, follow: bool) -> Place | None:
        return resolve(path, self._look, follow=follow)

    @contextmanager
    def open(self, path: str) -> Iterator[_OpenDirectory]:
        try:
            fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise UserError(
                f"the path {path[:60]}... is longer than Linux allows",
                hint="no tool could read this tree; delete the directory in the step that made it",
            ) from None
        try:
            yield _OpenDirectory(fd, self._files)
        finally:
            os.close(fd)

    def record(self, path: str) -> bytes:
        parent, _, name = path.rpartition("/")
        with self.open(parent) as directory:
            return directory.record(name or ".")

    def _look(self, path: str) -> tuple[bool, str | None] | None:
        try:
            fd = open_in_root(self._root, path, os.O_PATH, follow=False)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return None
        try:
            mode = os.fstat(fd).st_mode
            return stat.S_ISDIR(mode), os.readlink("", dir_fd=fd) if stat.S_ISLNK(mode) else None
        finally:
            os.close(fd)


class _OpenDirectory:
    __slots__ = ("_fd", "_files")

    def __init__(self, fd: int, files: FileDigests) -> None:
        self._fd = fd
        self._files = files

    @property
    def entries(self) -> Sequence[tuple[str, bool]]:
        with os.scandir(self._fd) as entries:
            return sorted([(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries])

    def record(self, name: str) -> bytes:
        info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        mode = info.st_mode
        if stat.S_ISREG(mode):
            known = self._files.get(info) or self._read(name, info)
            return filehash.record(
                mode, uid=info.st_uid, gid=info.st_gid, size=info.st_size, xattrs=known[:-32], content=known[-32:]
            )
        return filehash.record(
            mode,
            uid=info.st_uid,
            gid=info.st_gid,
            rdev=info.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
            link=filehash.link_target(self._fd, name) if stat.S_ISLNK(mode) else b"",
            xattrs=filehash.xattrs_of(f"/proc/self/fd/{self._fd}/{name}"),
        )

    def _read(self, name: str, info: os.stat_result) -> bytes:
        fd = filehash.open_file(self._fd, name)
        try:
            value = filehash.xattrs_of(fd) + filehash.hash_open_file(fd, info.st_size)
        finally:
            os.close(fd)
        self._files.add(info, value)
        return value
