"""fsutil's DiffCopy protocol as values: entries of a tree, what a receiver and a sender decide. No I/O.

    STAT   sender -> receiver   one entry, numbered from 0 in the order they come; without a stat the listing ends
    REQ    receiver -> sender   the contents of a regular file, by its number
    DATA   sender -> receiver   a piece of that file; an empty one ends it. Pieces of several files may be mixed
    FIN    both                 the receiver has all it wants; the sender answers with FIN and the stream ends
    ERR    both                 a text; whoever gets it gives up

A listing is depth first, the names of a directory in the order of their bytes. Deletions are not sent: what the
receiver has and the listing has not is gone. A mode is Go's `os.FileMode`, not `st_mode`. Paths are bytes here: the
other side may have names that are no UTF-8, and the order is that of bytes.

Facts: github.com/tonistiigi/fsutil (send.go, receive.go, validator.go, hardlinks.go, diff_containerd.go, stat_unix.go).
Whoever is at the other end may send anything, so everything that is kept of it has a bound.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from buildengine.errors import ContextError

MAX_PATH = 4095  # PATH_MAX without its NUL, for links too
MAX_NAME = 255
MAX_ENTRIES = 4_000_000
MAX_LISTING = 1 << 30  # bytes of names, links and extended attributes: most are kept until their files are whole
MAX_XATTRS = 256  # of one entry
MAX_XATTR_VALUE = 64 << 10  # XATTR_SIZE_MAX, xattr(7)
NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})

_NO_DEVICE = (0, 0)
_PERMISSIONS = 0o777
_DIR, _SYMLINK, _DEVICE, _FIFO, _SOCKET, _CHAR = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 1 << 21
_SETUID, _SETGID, _STICKY = 1 << 23, 1 << 22, 1 << 20
_KINDS = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: _DIR,
    stat.S_IFLNK: _SYMLINK,
    stat.S_IFBLK: _DEVICE,
    stat.S_IFCHR: _DEVICE | _CHAR,
    stat.S_IFIFO: _FIFO,
    stat.S_IFSOCK: _SOCKET,
}
_KINDS_BACK = {go: kind for kind, go in _KINDS.items() if kind != stat.S_IFSOCK}
_SPECIAL = ((stat.S_ISUID, _SETUID), (stat.S_ISGID, _SETGID), (stat.S_ISVTX, _STICKY))
_KIND_BITS = _DIR | _SYMLINK | _DEVICE | _FIFO | _SOCKET | _CHAR | 1 << 19  # the last is "irregular"
_SPECIAL_BITS = _SETUID | _SETGID | _STICKY


class Entry(NamedTuple):
    """One entry of a tree. `mode` is st_mode; `link` a symlink's target or, of a regular file or a device, the path
    of an earlier entry that is the same file."""

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: tuple[int, int] = _NO_DEVICE
    xattrs: Mapping[str, bytes] = NO_XATTRS


class ProtocolError(ContextError):
    """The other side does not speak the protocol, or not within its bounds."""


def go_mode(mode: int) -> int:
    """`st_mode` as Go's os.FileMode."""
    found = _KINDS[stat.S_IFMT(mode)] | mode & _PERMISSIONS
    for ours, theirs in _SPECIAL:
        if mode & ours:
            found |= theirs
    return found


def st_mode(mode: int) -> int:
    """Go's os.FileMode as `st_mode`. Raises ProtocolError for what is no file of Linux."""
    kind = _KINDS_BACK.get(mode & _KIND_BITS)
    if kind is None:
        raise ProtocolError(f"a mode of {mode:#o} is no kind of file that can be received")
    found = kind | mode & _PERMISSIONS
    if mode & _SPECIAL_BITS:
        for ours, theirs in _SPECIAL:
            if mode & theirs:
                found |= ours
    return found


class Listing:
    """Checks a listing as it comes: order, clean paths, parents that are directories, links to earlier files."""

    def __init__(self) -> None:
        self._parents: list[tuple[bytes, bytes]] = [(b"", b"")]  # open directories and the last name seen in each
        self._files: set[bytes] = set()  # what a hard link may lead to
        self._size = 0
        self.count = 0

    def add(self, entry: Entry) -> None:
        """Raises ProtocolError."""
        self.count += 1
        if self.count > MAX_ENTRIES:
            raise ProtocolError(f"a listing of more than {MAX_ENTRIES} entries")
        self._size += len(entry.path) + len(entry.link)
        if entry.xattrs:
            self._size += sum(len(name) + len(value) for name, value in entry.xattrs.items())
        if self._size > MAX_LISTING:
            raise ProtocolError(f"a listing of more than {MAX_LISTING >> 20} MiB of names and attributes")
        self._place(entry.path)
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFDIR:
            self._parents.append((entry.path, b""))
        elif kind != stat.S_IFLNK:
            if not entry.link:
                self._files.add(entry.path)
            elif entry.link not in self._files:
                raise ProtocolError(f"{_shown(entry.path)} is a link to {_shown(entry.link)}, which was not listed")
        elif not 0 < len(entry.link) <= MAX_PATH or b"\0" in entry.link:
            raise ProtocolError(f"{_shown(entry.path)} is a symlink to {_shown(entry.link)!r}")

    def _place(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        parents = self._parents
        while parents[-1][0] != directory and len(parents) > 1:
            parents.pop()
        open_directory, last = parents[-1]
        if open_directory != directory or name <= last:
            raise ProtocolError(f"{_shown(path)} is listed out of order, or without its directory")
        if len(name) > MAX_NAME or len(path) > MAX_PATH or name in (b".", b"..") or b"\0" in name or path[:1] == b"/":
            raise ProtocolError(f"{_shown(path)} is no path that can be received")
        parents[-1] = (directory, name)


class Step(Enum):
    """What a receiver does about an entry."""

    KEEP = "keep"  # it is there already
    MAKE = "make"  # all of it is known
    FETCH = "fetch"  # its contents have to be asked for
    LINK = "link"  # when all files are whole


class Receiving:
    """The receiver's side of a listing. `present` is what is there already, by path, and is used up.

    Owners do not count: what is received belongs to whoever receives it (BuildKit's clients list all as root's).
    `trust` false: no file that is there is taken for equal (`local.differ=none`). `attributes` reads the extended
    attributes of what is there, asked for only where the listing has some.
    """

    def __init__(
        self,
        present: dict[bytes, Entry],
        *,
        trust: bool = True,
        attributes: Callable[[bytes], Mapping[str, bytes]] = lambda path: NO_XATTRS,
    ) -> None:
        self._present = present
        self._trust = trust
        self._attributes = attributes
        self._listing = Listing()
        self._fresh: set[bytes] = set()  # regular files that are not the old inode any more
        self._numbers: dict[int, Entry] = {}
        self.touched: dict[bytes, int] = {}  # directories whose modification time has to be set, and it
        self._changed: set[bytes] = set()  # directories with names that are not what they were
        self._linked = any(_is_hard_link(entry) for entry in present.values())
        self._times: dict[bytes, int] = {}
        self._directories = {b""}

    @property
    def waiting(self) -> int:
        """How many files have been asked for and are not whole yet."""
        return len(self._numbers)

    @property
    def count(self) -> int:
        return self._listing.count

    def listed(self, entry: Entry) -> int:
        """The number of an entry, which comes next. Raises ProtocolError."""
        self._listing.add(entry)
        return self._listing.count - 1

    def step(self, entry: Entry, number: int) -> Step:
        """What to do about an entry that was listed. One that is not asked about is not wanted here."""
        old = self._present.pop(entry.path, None)
        is_directory = stat.S_ISDIR(entry.mode)
        if is_directory:
            self._times[entry.path] = entry.mtime_ns
            self._directories.add(entry.path)
            if old is not None and old.mtime_ns != entry.mtime_ns:
                self.touched[entry.path] = entry.mtime_ns
        if old is not None and self._is_same(old, entry):
            return Step.KEEP
        self.touch(entry.path.rpartition(b"/")[0])
        if is_directory:
            self.touched[entry.path] = entry.mtime_ns
            return Step.MAKE
        if _is_hard_link(entry):
            self._linked = True
            return Step.LINK
        if not stat.S_ISREG(entry.mode):
            return Step.MAKE
        self._fresh.add(entry.path)
        self._numbers[number] = entry
        return Step.FETCH

    def touch(self, directory: bytes) -> None:
        """Something in `directory` is made or removed."""
        self._changed.add(directory)
        if directory:
            self.touched[directory] = self._times[directory]

    def gone(self) -> list[bytes]:
        """After the listing: what is there and was not listed, without what is below something that goes itself."""
        found = []
        for path in self._present:
            parent = path.rpartition(b"/")[0]
            if parent in self._directories:
                self.touch(parent)
                found.append(path)
        self._present = {}
        return found

    def affected(self) -> frozenset[bytes] | None:
        """After the listing: the directories in which a name has another stat now. None: it may be any, since the
        names of one file have their stat in common."""
        if self._linked:
            return None
        return frozenset({*self._changed, *(path.rpartition(b"/")[0] for path in self.touched)})

    def wanted(self, number: int) -> Entry:
        """The file that a DATA belongs to. Raises ProtocolError."""
        entry = self._numbers.get(number)
        if entry is None:
            raise ProtocolError(f"data of file {number}, which was not asked for")
        return entry

    def whole(self, number: int) -> None:
        """The file has ended."""
        del self._numbers[number]

    def _is_same(self, old: Entry, new: Entry) -> bool:
        """fsutil's test: contents are not read, and of a directory size and time do not count."""
        if (old.mode, old.link, old.device) != (new.mode, new.link, new.device):
            return False
        if new.xattrs and new.xattrs != self._attributes(new.path):
            return False
        if stat.S_ISDIR(new.mode):
            return True
        if old.size != new.size or old.mtime_ns != new.mtime_ns or not self._trust:
            return False
        return not _is_hard_link(new) or new.link not in self._fresh


class Selected:
    """A listing of which only some entries are wanted, and of all the others just what was said of them.

    Their stats are kept for the file METADATA (fsutil receive.go: MetadataOnly). Directories come with the first
    entry in them that is wanted.
    """

    METADATA = b".fsutil-metadata"
    MOST = 256 << 20  # bytes of stats

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._parents: list[tuple[Entry, int]] = []  # open directories that have not come
        self._records: list[bytes] = []
        self._size = 0

    def passed(self, entry: Entry, number: int, record: bytes) -> list[tuple[Entry, int]]:
        """What is wanted now: nothing, or the entry and what it lies in. `record` is its stat. Raises ProtocolError."""
        if entry.path == self.METADATA:
            return []
        self._size += 4 + len(record)
        if self._size > self.MOST:
            raise ProtocolError(f"the stats of a listing take more than {self.MOST >> 20} MiB")
        self._records += [struct.pack("<I", len(record)), record]
        directory = entry.path.rpartition(b"/")[0]
        while self._parents and not (directory + b"/").startswith(self._parents[-1][0].path + b"/"):
            self._parents.pop()
        if self._wanted(os.fsdecode(entry.path)):
            passed, self._parents = [*self._parents, (entry, number)], []
            return passed
        if stat.S_ISDIR(entry.mode):
            self._parents.append((entry, number))
        return []

    def metadata(self) -> bytes:
        """For each entry four bytes of length, little-endian, and its stat."""
        return b"".join(self._records)


class Sending:
    """The sender's side: numbers for what is listed, and each file at most once."""

    def __init__(self) -> None:
        self._count = 0
        self._files: dict[int, bytes] = {}

    def listed(self, entry: Entry) -> None:
        if stat.S_ISREG(entry.mode):  # links too: the receiver numbers them as we do and does not ask
            self._files[self._count] = entry.path
        self._count += 1

    def requested(self, number: int) -> bytes:
        """The path of the file. Raises ProtocolError."""
        path = self._files.pop(number, None)
        if path is None:
            raise ProtocolError(f"file {number} was asked for, which is not in the listing or was sent already")
        return path


def check_attributes(entry: Entry) -> None:
    """Raises ProtocolError for what mknod(2) and setxattr(2) could not take."""
    if entry.device != _NO_DEVICE and not (0 <= entry.device[0] < 1 << 12 and 0 <= entry.device[1] < 1 << 20):
        raise ProtocolError(f"{_shown(entry.path)} is device {entry.device}, which cannot be")
    if entry.size < 0:
        raise ProtocolError(f"{_shown(entry.path)} has a size of {entry.size}")
    if entry.xattrs and (
        len(entry.xattrs) > MAX_XATTRS
        or any(len(name) > MAX_NAME or len(value) > MAX_XATTR_VALUE for name, value in entry.xattrs.items())
    ):
        raise ProtocolError(f"{_shown(entry.path)} has more extended attributes than Linux allows")


def _is_hard_link(entry: Entry) -> bool:
    return bool(entry.link) and not stat.S_ISLNK(entry.mode)


def _shown(path: bytes) -> str:
    return path[:200].decode(errors="backslashreplace")
