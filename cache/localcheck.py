"""Is a part of a user's directory still what its scan saw? Asked after a copy: then all of it is of one moment.

The same walk that made the content key goes over the same selection once more, but reads nothing: each entry must
have the stamp that the scan saw, each link that a path goes through too. What is new is not looked for: who copies
takes nothing that the scan does not show.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from buildengine.errors import ContextChanged
from buildengine.inroot import open_in_root
from buildengine.limits import DISK, offload
from cache import filehash
from cache.contenthash import content_digest
from cache.hashtree import Place, resolve
from cache.localscan import Entry, LocalScan, stamp
from cache.selection import Selector


async def check_unchanged(scan: LocalScan, selectors: Sequence[Selector]) -> None:
    """Raises ContextChanged, which names the first entry that is another one now, or gone."""
    await offload(content_digest, _Comparison(scan), selectors, limiter=DISK)


class _Comparison:
    """`cache.hashtree.Tree` of a scan, in which to look at an entry is to compare it."""

    def __init__(self, scan: LocalScan) -> None:
        self._scan = scan

    def resolve(self, path: str, *, follow: bool) -> Place | None:
        return resolve(path, self._look, follow=follow)

    @contextmanager
    def open(self, path: str) -> Iterator[_Directory]:
        fd = self._open(path)
        try:
            yield _Directory(self._scan.names(path), fd, path)
        finally:
            os.close(fd)

    def record(self, path: str) -> bytes:
        parent, _, name = path.rpartition("/")
        if not path:
            return b""
        with self.open(parent) as directory:
            return directory.record(name)

    def _look(self, path: str) -> tuple[bool, str | None] | None:
        parent, _, name = path.rpartition("/")
        entry = self._scan.names(parent).get(name)
        if entry is None:
            return None
        self.record(path)
        return stat.S_ISDIR(entry[0]), entry[5] if stat.S_ISLNK(entry[0]) else None

    def _open(self, path: str) -> int:
        try:
            return open_in_root(self._scan.root, path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
        except OSError:
            raise ContextChanged(path) from None


class _Directory:
    def __init__(self, listing: Mapping[str, Entry], fd: int, path: str) -> None:
        self._listing = listing
        self._fd = fd
        self._path = path

    @property
    def entries(self) -> Sequence[tuple[str, bool]]:
        return [(name, stat.S_ISDIR(entry[0])) for name, entry in self._listing.items()]

    def record(self, name: str) -> bytes:
        entry = self._listing[name]
        try:
            info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            raise ContextChanged(self._full(name)) from None
        if stamp(info) != entry[:5] and not (stat.S_ISDIR(entry[0]) and self._is_same_directory(name, entry, info)):
            raise ContextChanged(self._full(name))
        return b""

    def _is_same_directory(self, name: str, entry: Entry, info: os.stat_result) -> bool:
        """What is in it is compared by itself; that something else came or went is no change of the directory."""
        if (info.st_mode, info.st_ino) != (entry[0], entry[4]):
            return False
        return entry[5] is None or filehash.xattrs_of(f"/proc/self/fd/{self._fd}/{name}") == entry[5]

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name
