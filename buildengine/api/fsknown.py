"""What a scan has seen of a directory as entries of fsutil's protocol: what a receiver has already. No I/O."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from buildengine.api.fsutil import Entry
from cache.localscan import LocalScan


def entries(scan: LocalScan) -> dict[bytes, Entry]:
    """By path, without owners and extended attributes. Of the names of one file the first in the protocol's order is
    the file, the others are links to it."""
    found: dict[bytes, Entry] = {}
    names: dict[int, list[bytes]] = {}
    for entry, inode in _each(scan):
        found[entry.path] = entry
        if not (stat.S_ISDIR(entry.mode) or stat.S_ISLNK(entry.mode)):
            names.setdefault(inode, []).append(entry.path)
    for paths in names.values():
        if len(paths) > 1:
            first, *others = sorted(paths, key=_order)
            for path in others:
                found[path] = found[path]._replace(link=first)
    return found


def _each(scan: LocalScan) -> Iterator[tuple[Entry, int]]:
    """Runs for every file of every context: it is fast."""
    for directory, listing in scan.listings.items():
        prefix = os.fsencode(directory) + b"/" if directory else b""
        for name, (mode, size, mtime, _, inode, known) in listing.items():
            path = prefix + name.encode("utf-8", "surrogateescape")
            kind = stat.S_IFMT(mode)
            if kind == stat.S_IFREG:
                yield Entry(path, mode, 0, 0, size, mtime), inode
            elif kind == stat.S_IFLNK:
                yield Entry(path, mode, 0, 0, size, mtime, os.fsencode(known)), inode
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                yield Entry(path, mode, 0, 0, 0, mtime, b"", (os.major(size), os.minor(size))), inode
            else:
                yield Entry(path, mode, 0, 0, 0, mtime), inode


def _order(path: bytes) -> list[bytes]:
    return path.split(b"/")
