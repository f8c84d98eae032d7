"""A stack of layers seen as one tree, without mounting anything: what overlayfs would show.

Rules (Documentation/filesystems/overlayfs.rst): the topmost layer that has a name decides. A character device
0:0 hides it. Directories of one name are one directory, down to the first layer where the name is something else
or the directory is opaque; its attributes are the topmost one's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import field

from buildengine.inroot import open_in_root
from buildengine.values import dataclass
from cache.overlay import OPAQUE_XATTR

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Something other than a directory. `directory` is open only while its MergedDirectory is the current one."""

    name: str
    directory: int
    info: os.stat_result


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedDirectory:
    """`path` is relative to the root ("" itself); `source` is the directory that gives the attributes."""

    path: str
    source: int
    members: tuple[Member, ...]


@dataclass(slots=True)
class _Listing:
    members: dict[str, Member] = field(default_factory=dict)
    directories: dict[str, list[int]] = field(default_factory=dict)  # name -> the layers that have it, topmost first
    closed: set[str] = field(default_factory=set)  # names that no lower layer can add to


def merged(roots: Sequence[int]) -> Iterator[MergedDirectory]:
    """Every directory of the tree, parents first. `roots` are the layers' directories, topmost first."""
    waiting = [("", list(range(len(roots))))]
    while waiting:
        path, layers = waiting.pop()
        with ExitStack() as opened:
            directories: list[tuple[int, int]] = []
            for layer in layers:
                fd = open_in_root(roots[layer], path, _DIRECTORY, follow=False)
                opened.callback(os.close, fd)
                directories.append((layer, fd))
                if is_opaque(fd):
                    break
            listing = _list(directories)
            yield MergedDirectory(path=path, source=directories[0][1], members=tuple(listing.members.values()))
        prefix = path + "/" if path else ""
        waiting += [(prefix + name, below) for name, below in listing.directories.items()]


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def _list(directories: Sequence[tuple[int, int]]) -> _Listing:
    listing = _Listing()
    for layer, fd in directories:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.name not in listing.closed:
                    _add(listing, layer, fd, entry)
    return listing


def _add(listing: _Listing, layer: int, fd: int, entry: os.DirEntry[str]) -> None:
    name, info = entry.name, entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        listing.directories.setdefault(name, []).append(layer)
        return
    listing.closed.add(name)
    if name not in listing.directories and not is_whiteout(info):
        listing.members[name] = Member(name=name, directory=fd, info=info)
