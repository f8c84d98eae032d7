"""A directory on disk as the entries of fsutil's protocol, in its order: what a sender lists, what a receiver has.

Everything is reached through a descriptor of the root. A symlink is an entry, never a way; what goes while we look was
never there. Sockets are left out: they are nothing that could be sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from buildengine.api.fsutil import NO_XATTRS, Entry
from buildengine.errors import ContextError
from buildengine.inroot import open_in_root
from cache.selection import Filter, Verdict
from worker.layers import xattrs


def walk(root: int, keep: Filter | None = None, *, attributes: bool = True) -> Iterator[Entry]:
    """All entries below the open directory `root` that `keep` keeps. Raises ContextError.

    A directory that is not kept itself comes when something in it does. Of the kept names of one file the first is the
    file, the others are links to it. Without `attributes` nobody asks for the extended ones.
    """
    return _Walk(root, keep, attributes).entries()


def attributes_of(root: int, path: bytes) -> Mapping[str, bytes]:
    """The extended attributes of one entry that belong to a file of an image."""
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY, follow=False)
        try:
            return _attributes(fd, name)
        finally:
            os.close(fd)
    except OSError:
        return NO_XATTRS


_Inode = tuple[int, int]
_Found = tuple[Entry, bool, _Inode | None]
"""An entry, whether it is kept itself, and its inode when it may have other names."""

_LINKED = (stat.S_IFREG, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO)


class _Frame:
    """An open directory of the walk. `unsure` is its own entry, as long as nothing in it has come."""

    __slots__ = ("entries", "unsure")

    def __init__(self, entries: Iterator[_Found], unsure: Entry | None) -> None:
        self.entries = entries
        self.unsure = unsure


class _Walk:
    def __init__(self, root: int, keep: Filter | None, attributes: bool) -> None:
        self._root = root
        self._keep = keep
        self._attributes = attributes
        self._seen: dict[_Inode, bytes] = {}  # files with several names, as they come

    def entries(self) -> Iterator[Entry]:
        frames = [_Frame(self._list(b""), None)]
        while frames:
            following = next(frames[-1].entries, None)
            if following is None:
                frames.pop()
                continue
            entry, kept, inode = following
            if kept:
                yield from _surely(frames)
                yield self._linked(entry, inode) if inode else entry
            if stat.S_ISDIR(entry.mode):
                frames.append(_Frame(self._list(entry.path), None if kept else entry))

    def _linked(self, entry: Entry, inode: _Inode) -> Entry:
        first = self._seen.setdefault(inode, entry.path)
        return entry if first == entry.path else entry._replace(link=first)

    def _list(self, path: bytes) -> Iterator[_Found]:
        """One directory, sorted."""
        try:
            fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
        except OSError as error:
            raise _unreadable(path, error) from None
        try:
            return iter(self._read(fd, path + b"/" if path else b""))
        except OSError as error:
            raise _unreadable(path, error) from None
        finally:
            os.close(fd)

    def _read(self, fd: int, prefix: bytes) -> list[_Found]:
        with os.scandir(fd) as scan:
            found = sorted([(os.fsencode(entry.name), entry) for entry in scan], key=lambda pair: pair[0])
        entries = []
        for name, entry in found:
            path = prefix + name
            kept = True
            if self._keep is not None:
                verdict = self._keep(os.fsdecode(path), entry.is_dir(follow_symlinks=False))
                if verdict is Verdict.PRUNE or (verdict is Verdict.SKIP and not entry.is_dir(follow_symlinks=False)):
                    continue
                kept = verdict is Verdict.KEEP
            try:
                info = entry.stat(follow_symlinks=False)
                if not stat.S_ISSOCK(info.st_mode):
                    linked = info.st_nlink > 1 and stat.S_IFMT(info.st_mode) in _LINKED
                    inode = (info.st_dev, info.st_ino) if linked else None
                    entries.append((self._entry(fd, path, name, info), kept, inode))
            except FileNotFoundError:
                continue
        return entries

    def _entry(self, fd: int, path: bytes, name: bytes, info: os.stat_result) -> Entry:
        mode = info.st_mode
        link, device = b"", (0, 0)
        if stat.S_ISLNK(mode):
            link = os.readlink(name, dir_fd=fd)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            device = os.major(info.st_rdev), os.minor(info.st_rdev)
        size = 0 if stat.S_ISDIR(mode) else info.st_size
        attributes = _attributes(fd, name) if self._attributes else NO_XATTRS
        return Entry(path, mode, info.st_uid, info.st_gid, size, info.st_mtime_ns, link, device, attributes)


def _surely(frames: list[_Frame]) -> Iterator[Entry]:
    for frame in frames:
        if frame.unsure is not None:
            yield frame.unsure
            frame.unsure = None


def _attributes(fd: int, name: bytes) -> Mapping[str, bytes]:
    path = b"/proc/self/fd/%d/%b" % (fd, name)
    try:
        kept = [key for key in os.listxattr(path, follow_symlinks=False) if xattrs.is_kept(key)]
        return {key: os.getxattr(path, key, follow_symlinks=False) for key in kept} if kept else NO_XATTRS
    except OSError:  # none on this file system, or it is gone
        return NO_XATTRS


def _unreadable(path: bytes, error: OSError) -> ContextError:
    return ContextError(f"cannot read the directory {os.fsdecode(path) or '.'}: {error.strerror}")
