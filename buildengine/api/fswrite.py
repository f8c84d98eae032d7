"""Entries of fsutil's protocol made on disk, below an open directory, in the order of a listing.

A name is only ever looked up in a directory that was opened name by name from the root without following a symlink,
so whatever waits there leads nowhere else. A file is a new inode always: what is linked elsewhere stays as it was.
What was there of that name is replaced when the new one is whole.

All of it blocks: it runs in a thread, one call at a time.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from buildengine.api.fsutil import Entry
from cache.removal import remove_tree
from worker.layers import xattrs
from worker.layers.filedata import write_all

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 32


class _File:
    """A file that is being written: under its own name, or under another one until it replaces what is there."""

    __slots__ = ("entry", "fd", "hasher", "name", "replaces")

    def __init__(self, entry: Entry, fd: int, name: bytes, *, replaces: bool) -> None:
        self.entry, self.fd, self.name, self.replaces = entry, fd, name, replaces
        self.hasher = blake3()


class Writer:
    """Makes entries below `root`, which stays the caller's. All is whoever's that runs this.

    `digests` are the BLAKE3 of files that became whole, of those without extended attributes: those count as well.
    Raises OSError with the path that could not be made. `close` it: what is not whole by then goes.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self.digests: dict[bytes, bytes] = {}
        self._opened: OrderedDict[bytes, int] = OrderedDict()
        self._files: dict[int, _File] = {}
        self._modes: dict[bytes, Entry] = {}  # of directories, set last: some modes would keep us out

    def make(self, entry: Entry) -> None:
        """Anything but a file with contents."""
        directory, _, name = entry.path.rpartition(b"/")
        try:
            parent = self._directory(directory)
            if stat.S_ISDIR(entry.mode):
                self._make_directory(entry, parent, name)
            elif entry.link and not stat.S_ISLNK(entry.mode):
                self._make_link(entry, name)
            else:
                self._make_special(entry, parent, name)
        except OSError as error:
            raise _named(error, entry.path) from error

    def write(self, number: int, entry: Entry, data: Sequence[bytes], *, last: bool) -> None:
        """A piece of file `number`; with the last one it is whole."""
        try:
            file = self._files.get(number) or self._create(number, entry)
            content = data[0] if len(data) == 1 else b"".join(data)
            file.hasher.update(content)
            write_all(file.fd, content)
            if last:
                self._finish(file)
                del self._files[number]
        except OSError as error:
            raise _named(error, entry.path) from error

    def remove(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        try:
            with suppress(FileNotFoundError):
                self._remove(self._directory(directory), path, name)
        except OSError as error:
            raise _named(error, path) from error

    def finish(self, times: Mapping[bytes, int]) -> None:
        """Modes of the directories that were made, and modification times (ns) of all that were touched."""
        for path in sorted({*self._modes, *times}, reverse=True):
            try:
                fd = self._directory(path)
                if path in self._modes:
                    self._set(fd, self._modes[path])
                if path in times:
                    os.utime(fd, ns=(times[path], times[path]))
            except OSError as error:
                raise _named(error, path) from error

    @property
    def is_closed(self) -> bool:
        """Nothing of it is open."""
        return not (self._files or self._opened)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file.fd)
            with suppress(OSError):
                os.unlink(file.name, dir_fd=self._directory(file.entry.path.rpartition(b"/")[0]))
        for fd in self._opened.values():
            os.close(fd)
        self._files.clear()
        self._opened.clear()

    # --- files with contents ------------------------------------------------------------------------------

    def _create(self, number: int, entry: Entry) -> _File:
        directory, _, name = entry.path.rpartition(b"/")
        parent = self._directory(directory)
        try:
            file = _File(entry, os.open(name, _NEW, 0o600, dir_fd=parent), name, replaces=False)
        except FileExistsError:
            name = b".tmp-" + secrets.token_hex(8).encode()
            file = _File(entry, os.open(name, _NEW, 0o600, dir_fd=parent), name, replaces=True)
        self._files[number] = file
        return file

    def _finish(self, file: _File) -> None:
        entry = file.entry
        self._set(file.fd, entry)
        os.utime(file.fd, ns=(entry.mtime_ns, entry.mtime_ns))
        if file.replaces:
            directory, _, name = entry.path.rpartition(b"/")
            parent = self._directory(directory)
            try:
                os.rename(file.name, name, src_dir_fd=parent, dst_dir_fd=parent)
            except IsADirectoryError:
                self._remove(parent, entry.path, name)
                os.rename(file.name, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.close(file.fd)
        if not entry.xattrs:
            self.digests[entry.path] = file.hasher.digest()

    def _set(self, fd: int, entry: Entry) -> None:
        os.fchmod(fd, stat.S_IMODE(entry.mode))
        if entry.xattrs:
            xattrs.write(fd, entry.xattrs)

    # --- everything else ----------------------------------------------------------------------------------

    def _make_directory(self, entry: Entry, parent: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._modes[entry.path] = entry

    def _make_link(self, entry: Entry, name: bytes) -> None:
        directory, _, first = entry.link.rpartition(b"/")
        source = os.dup(self._directory(directory))  # the next look-up may close it
        try:
            parent = self._directory(entry.path.rpartition(b"/")[0])
            try:
                os.link(first, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                self._remove(parent, entry.path, name)
                os.link(first, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _make_special(self, entry: Entry, parent: int, name: bytes) -> None:
        try:
            _make_node(entry, parent, name)
        except FileExistsError:
            self._remove(parent, entry.path, name)
            _make_node(entry, parent, name)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _remove(self, parent: int, path: bytes, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            for below in [opened for opened in self._opened if opened == path or opened.startswith(path + b"/")]:
                os.close(self._opened.pop(below))
            remove_tree(Path(os.fsdecode(b"/proc/self/fd/%d/%b" % (parent, name))))

    def _directory(self, path: bytes) -> int:
        """The open directory `path`, ours until the next call. Name by name, following nothing."""
        if not path:
            return self._root
        fd = self._opened.get(path)
        if fd is not None:
            self._opened.move_to_end(path)
            return fd
        above, _, name = path.rpartition(b"/")
        missing = [name]
        while above and above not in self._opened:
            above, _, name = above.rpartition(b"/")
            missing.append(name)
        current = self._opened[above] if above else self._root
        for name in reversed(missing):
            above = above + b"/" + name if above else name
            current = self._opened[above] = os.open(name, _DIRECTORY, dir_fd=current)
            if len(self._opened) > _OPEN_DIRECTORIES:
                os.close(self._opened.popitem(last=False)[1])
        return current


def _make_node(entry: Entry, parent: int, name: bytes) -> None:
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.link, name, dir_fd=parent)
    elif stat.S_ISFIFO(entry.mode):
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, os.makedev(*entry.device), dir_fd=parent)


def _named(error: OSError, path: bytes) -> OSError:
    return OSError(error.errno, error.strerror, os.fsdecode(path))
