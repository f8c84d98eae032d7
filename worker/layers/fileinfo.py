"""What lstat(2) says about a file, as the header of its entry. This module opens nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from worker.layers.tar import NO_XATTRS, Kind, TarHeader

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}


def kind_of(info: os.stat_result) -> Kind | None:
    """The kind of entry; None for a socket, which no archive can hold."""
    return _KINDS.get(stat.S_IFMT(info.st_mode))


def is_whiteout(info: os.stat_result) -> bool:
    """Whether this is overlayfs's mark of a deleted name."""
    return info.st_rdev == 0 and stat.S_ISCHR(info.st_mode)


def header_of(
    name: bytes, info: os.stat_result, *, linkname: bytes = b"", attributes: Mapping[str, bytes] = NO_XATTRS
) -> TarHeader:
    """The entry called `name`. The file must not be a socket."""
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    device = kind is Kind.CHAR or kind is Kind.BLOCK
    return TarHeader(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if kind is Kind.FILE else 0,
        mtime=info.st_mtime_ns,
        linkname=linkname,
        major=os.major(info.st_rdev) if device else 0,
        minor=os.minor(info.st_rdev) if device else 0,
        xattrs=attributes,
    )
