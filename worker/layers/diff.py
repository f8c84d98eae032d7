"""What a layer changes, in the order of its archive: names sorted, a directory before what is in it.

The layer is a directory in overlay upper format, `lower` the merged tree below it. As BuildKit's differ does: a
whiteout of what the lower tree never had is left out; an opaque directory becomes whiteouts of what it hides; what was
copied up but not changed is left out, unless something below it is in the archive. Unlike there, equal times are not
believed, contents are compared; and an unchanged file that got a new link is in the archive as a link to it.

This module must not know tar's bytes or compression. It never follows a symlink and holds few descriptors, however
deep the tree is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace

from buildengine.errors import StoreError, UserError
from buildengine.inroot import open_in_root
from buildengine.values import dataclass
from cache.overlay import OPAQUE_XATTR
from worker.layers import xattrs
from worker.layers.fileinfo import header_of, is_whiteout
from worker.layers.names import MAX_PATH, WHITEOUT, shown
from worker.layers.tar import Kind, TarHeader

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP = 1 << 18
_HELD = 32  # levels whose descriptors stay open
_FOREIGN = ("trusted.overlay.redirect", "trusted.overlay.metacopy")  # the data or the names are somewhere else


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the archive. `fd` is the open file whose `header.size` bytes follow, valid until the next change."""

    header: TarHeader
    fd: int = -1


@dataclass(slots=True, kw_only=True)
class _Level:
    """A directory on the way down. Descriptors of levels far above are closed, and opened again on the way back."""

    path: bytes
    upper: int
    lower: int
    names: Iterator[bytes]
    kinds: dict[bytes, int]
    hides: bool
    has_lower: bool
    pending: TarHeader | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unchanged:
    """A file with several links that is as it was: in the archive only if another name of it is."""

    path: bytes
    info: os.stat_result
    levels: tuple[_Level, ...]


_Inode = tuple[int, int]


class Differ:
    """Iterate once over the changes; `close` in any case."""

    def __init__(self, upper: int, lower: int | None) -> None:
        self._upper = upper
        self._lower = lower
        self._levels: list[_Level] = []
        self._links: dict[_Inode, bytes] = {}
        self._unchanged: dict[_Inode, list[_Unchanged]] = {}
        self._others: list[_Unchanged] = []  # further names of the current change
        self._file = -1

    def __iter__(self) -> Iterator[Change]:
        self._enter(b"", os.dup(self._upper), os.dup(self._lower) if self._lower is not None else -1, None, False)
        while self._levels:
            level = self._levels[-1]
            name = next(level.names, None)
            if name is None:
                self._leave()
                continue
            change = self._change(level, name)
            if self._file >= 0 and (change is None or change.fd < 0):
                self._close_file()
            if change is not None:
                yield from _parents(self._levels)
                yield change
                self._close_file()
            while self._others:
                other = self._others.pop(0)
                yield from _parents(other.levels)
                yield _link(other.path, other.info, self._links[other.info.st_dev, other.info.st_ino])

    def close(self) -> None:
        """Close every descriptor."""
        self._close_file()
        while self._levels:
            self._leave()

    # --- going down and up ------------------------------------------------------------------------------

    def _enter(self, path: bytes, upper: int, lower: int, pending: TarHeader | None, hides: bool) -> None:
        level = _Level(
            path=path,
            upper=upper,
            lower=lower,
            names=iter(()),
            kinds={},
            hides=hides,
            has_lower=lower >= 0,
            pending=pending,
        )
        self._levels.append(level)
        with os.scandir(upper) as scan:
            level.kinds = {os.fsencode(entry.name): _type(entry) for entry in scan}
        names = set(level.kinds)
        if lower >= 0 and hides:
            names.update(map(os.fsencode, os.listdir(lower)))
        level.names = iter(sorted(names))
        if len(self._levels) > _HELD:
            _let_go(self._levels[-_HELD - 1])

    def _leave(self) -> None:
        _let_go(self._levels.pop())
        if self._levels and self._levels[-1].upper < 0:
            level = self._levels[-1]
            level.upper = open_in_root(self._upper, level.path, _DIRECTORY, follow=False)
            if level.has_lower and self._lower is not None:
                level.lower = open_in_root(self._lower, level.path, _DIRECTORY, follow=False)

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # --- one name ---------------------------------------------------------------------------------------

    def _change(self, level: _Level, name: bytes) -> Change | None:
        path = b"%b/%b" % (level.path, name) if level.path else name
        if len(path) > MAX_PATH:
            raise UserError(
                f"the path {shown(path[:60])}... is longer than Linux allows",
                hint="no tool could read this image; delete the directory in the step that made it",
            )
        kind = level.kinds.get(name)
        if kind == stat.S_IFDIR:
            return self._directory(level, name, path)
        below = _lstat(name, level.lower)
        if kind == stat.S_IFREG:
            return self._regular(level, name, path, below)
        info = os.stat(name, dir_fd=level.upper, follow_symlinks=False) if kind is not None else None
        if info is None or is_whiteout(info):
            return _whiteout(level.path, name) if below is not None else None
        if stat.S_ISSOCK(info.st_mode):
            return None
        linked = self._linked(path, info)
        if linked is not None:
            return linked
        link = os.readlink(name, dir_fd=level.upper) if stat.S_ISLNK(info.st_mode) else b""
        if _same_attributes(info, below) and (not link or link == os.readlink(name, dir_fd=level.lower)):
            self._remember_same(path, info)
            return None
        return self._first(path, info, Change(header=header_of(path, info, linkname=link)))

    def _regular(self, level: _Level, name: bytes, path: bytes, below: os.stat_result | None) -> Change | None:
        fd = self._file = os.open(name, _FILE, dir_fd=level.upper)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise StoreError(f"{shown(path)} changed while its layer was read")
        link = self._linked(path, info)
        if link is not None:
            return link
        names = xattrs.list_names(fd)
        if names:
            _check_complete(names, path)
        attributes = xattrs.read(fd, names)
        if below is not None and _same_attributes(info, below) and self._same_file(level, name, info, attributes):
            self._remember_same(path, info)
            return None
        return self._first(path, info, Change(header=header_of(path, info, attributes=attributes), fd=fd))

    def _remember_same(self, path: bytes, info: os.stat_result) -> None:
        """Nothing to tell of this file, unless another name of it is new."""
        if info.st_nlink > 1:
            same = _Unchanged(path=path, info=info, levels=tuple(self._levels))
            self._unchanged.setdefault((info.st_dev, info.st_ino), []).append(same)

    def _first(self, path: bytes, info: os.stat_result, change: Change) -> Change:
        """`change` again, remembered as what other names of the file lead to."""
        if info.st_nlink > 1:
            inode = (info.st_dev, info.st_ino)
            self._links[inode] = path
            self._others = self._unchanged.pop(inode, [])
        return change

    def _linked(self, path: bytes, info: os.stat_result) -> Change | None:
        """A hard link, if the same file is in the archive already."""
        first = self._links.get((info.st_dev, info.st_ino)) if info.st_nlink > 1 else None
        return _link(path, info, first) if first is not None else None

    def _same_file(self, level: _Level, name: bytes, info: os.stat_result, attributes: object) -> bool:
        fd = os.open(name, _FILE, dir_fd=level.lower)
        try:
            return xattrs.read(fd) == attributes and _same_data(self._file, fd, info.st_size)
        finally:
            os.close(fd)

    def _directory(self, level: _Level, name: bytes, path: bytes) -> Change | None:
        upper = os.open(name, _DIRECTORY, dir_fd=level.upper)
        lower = -1
        try:
            names = xattrs.list_names(upper)
            _check_complete(names, path)
            opaque = OPAQUE_XATTR in names and os.getxattr(upper, OPAQUE_XATTR) == b"y"
            info = os.fstat(upper)
            header = header_of(path + b"/", info, attributes=xattrs.read(upper, names))
            below = _lstat(name, level.lower)
            if below is not None and stat.S_ISDIR(below.st_mode):
                lower = os.open(name, _DIRECTORY, dir_fd=level.lower)
            same = lower >= 0 and _same_directory(info, os.fstat(lower)) and xattrs.read(lower) == header.xattrs
        except BaseException:
            os.close(upper)
            if lower >= 0:
                os.close(lower)
            raise
        self._enter(path, upper, lower, header if same else None, opaque or level.hides)
        return None if same else Change(header=header)


def _parents(levels: Sequence[_Level]) -> Iterator[Change]:
    """The unchanged directories above a change."""
    for level in levels:
        if level.pending is not None:
            header, level.pending = level.pending, None
            yield Change(header=header)


def _link(path: bytes, info: os.stat_result, target: bytes) -> Change:
    header = header_of(path, info)
    return Change(header=replace(header, kind=Kind.LINK, size=0, linkname=target, major=0, minor=0))


def _type(entry: os.DirEntry[str]) -> int:
    """Directory, regular file, or anything else; without a stat(2) where the file system says so."""
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def _whiteout(directory: bytes, name: bytes) -> Change:
    """The marker has neither owner nor time, as containerd writes it."""
    target = b"%b/%b%b" % (directory, WHITEOUT, name) if directory else WHITEOUT + name
    return Change(header=TarHeader(name=target, kind=Kind.FILE))


def _lstat(name: bytes, directory: int) -> os.stat_result | None:
    """What the lower tree has; a whiteout there (a lone layer is not mounted as an overlay) is nothing."""
    if directory < 0:
        return None
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return None if is_whiteout(info) else info


def _same_directory(info: os.stat_result, below: os.stat_result) -> bool:
    """A directory's time says only that something in it changed."""
    return (info.st_mode, info.st_uid, info.st_gid) == (below.st_mode, below.st_uid, below.st_gid)


def _same_attributes(info: os.stat_result, below: os.stat_result | None) -> bool:
    return (
        below is not None
        and _same_directory(info, below)
        and info.st_size == below.st_size
        and info.st_mtime_ns == below.st_mtime_ns
        and info.st_rdev == below.st_rdev
    )


def _same_data(first: int, second: int, size: int) -> bool:
    position = 0
    while position < size:
        data = os.pread(first, _STEP, position)
        if not data or data != os.pread(second, _STEP, position):
            return False
        position += len(data)
    return True


def _check_complete(names: list[str], path: bytes) -> None:
    for name in _FOREIGN:
        if name in names:
            raise StoreError(
                f"{shown(path)} of a layer has the attribute {name}",
                hint="the overlay was mounted with redirect_dir or metacopy, which layers cannot have",
            )


def _let_go(level: _Level) -> None:
    for fd in (level.upper, level.lower):
        if fd >= 0:
            os.close(fd)
    level.upper = level.lower = -1
