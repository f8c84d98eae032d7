"""What a copied file becomes: the values that steer a copy. This module must not do anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from buildengine.values import dataclass
from worker.layers import xattrs
from worker.layers.names import Path
from worker.layers.permissions import ModeChange
from worker.layers.select import PathMatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """Files that exist already: `find(source path)` names one below `directory` with the same contents, or None.

    It is linked, not copied, if its owner, mode, time and size are what the copy would have.
    """

    directory: int
    find: Callable[[bytes], bytes | None]


class Visible(Protocol):
    """What of the source may be copied, where that is not all of it: a scan of a directory that others write to."""

    def names(self, directory: str) -> Collection[str]:
        """The visible names in a directory, given by its path relative to the source's root."""
        ...

    def is_current(self, path: str, info: os.stat_result) -> bool:
        """Whether what was just read, whose fstat(2) is now `info`, is what was looked at before."""
        ...


def is_visible(visible: Visible | None, path: Path) -> bool:
    """Whether `path` may be copied; the root may."""
    if visible is None or not path:
        return True
    return os.fsdecode(path[-1]) in visible.names(os.fsdecode(b"/".join(path[:-1])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a copied file becomes. None keeps what the source, or the archive, has; `timestamp` counts nanoseconds.

    `unprivileged`: it gives nobody of this host rights. A file has no set-ID bits and no capabilities, a device no
    mode for others than its owner: all three are what whoever wrote the source chose.
    """

    owner: tuple[int, int] | None = None
    archive_owner: tuple[int, int] | None = None
    mode: int | None = None
    mode_change: ModeChange | None = None
    timestamp: int | None = None
    replace: bool = False
    include: PathMatcher | None = None
    exclude: PathMatcher | None = None
    visible: Visible | None = None
    reuse: Reuse | None = None
    digests: bool = False
    unprivileged: bool = False

    def owner_of(self, info: os.stat_result) -> tuple[int, int]:
        return self.owner if self.owner is not None else (info.st_uid, info.st_gid)

    def mode_of(self, info: os.stat_result) -> int:
        mode = self._mode_of(info)
        if not self.unprivileged or stat.S_ISDIR(info.st_mode):
            return mode
        return mode & (0o600 if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0o1777)

    def _mode_of(self, info: os.stat_result) -> int:
        if self.mode_change is not None:
            return self.mode_change.apply(info.st_mode, directory=stat.S_ISDIR(info.st_mode))
        return self.mode if self.mode is not None else stat.S_IMODE(info.st_mode)

    def xattrs_of(self, fd: int) -> Mapping[str, bytes]:
        """What of the attributes of an open file its copy gets."""
        found = xattrs.read(fd)
        if self.unprivileged and xattrs.CAPABILITY in found:
            return {name: value for name, value in found.items() if name != xattrs.CAPABILITY}
        return found

    def time_of(self, info: os.stat_result) -> int:
        return self.timestamp if self.timestamp is not None else info.st_mtime_ns


class CopiedFile(NamedTuple):
    """A regular file that was copied or linked; `digest` is the BLAKE3 of its contents, when asked for."""

    path: bytes
    info: os.stat_result
    digest: bytes
