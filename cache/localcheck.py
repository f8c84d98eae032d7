"""Is what a copy was to take still where its scan saw it? Asked after the copy: then all of it was so meanwhile.

Whoever copies compares each entry of a directory as it comes to it (`LocalScan.is_current`). What remains is the way
there: the selected paths themselves, the links they go through and what a wildcard matches.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from buildengine.errors import ContextChanged
from buildengine.inroot import open_in_root
from cache.contenthash import places
from cache.hashtree import Place, resolve
from cache.localscan import LocalScan
from cache.selection import Selector


def check_paths(scan: LocalScan, selectors: Sequence[Selector]) -> None:
    """Raises ContextChanged, which names what is another one now, or gone."""
    tree = _Comparison(scan)
    for selector in selectors:
        for _, place in places(tree, selector):
            tree.compare(place.path)
            if place.is_link and selector.follow_links:
                tree.resolve(place.path, follow=True)


class _Comparison:
    """`cache.hashtree.Tree` of a scan, as far as paths are resolved in one: to look at an entry is to compare it."""

    def __init__(self, scan: LocalScan) -> None:
        self._scan = scan

    def resolve(self, path: str, *, follow: bool) -> Place | None:
        return resolve(path, self._look, follow=follow)

    @contextmanager
    def open(self, path: str) -> Iterator[_Names]:
        yield _Names(self._scan, path)

    def record(self, path: str) -> bytes:
        self.compare(path)
        return b""

    def compare(self, path: str) -> None:
        if not path:
            return
        parent, _, name = path.rpartition("/")
        try:
            fd = open_in_root(self._scan.root, parent, os.O_PATH | os.O_DIRECTORY, follow=False)
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        except OSError:
            raise ContextChanged(path) from None
        if not self._scan.is_current(path, info):
            raise ContextChanged(path)

    def _look(self, path: str) -> tuple[bool, str | None] | None:
        parent, _, name = path.rpartition("/")
        entry = self._scan.names(parent).get(name)
        if entry is None:
            return None
        self.compare(path)
        return stat.S_ISDIR(entry[0]), entry[5] if stat.S_ISLNK(entry[0]) else None


class _Names:
    """A directory of the scan, of which nothing is asked but the names."""

    def __init__(self, scan: LocalScan, path: str) -> None:
        self.entries = [(name, stat.S_ISDIR(entry[0])) for name, entry in scan.names(path).items()]

    def record(self, name: str) -> bytes:
        return b""
