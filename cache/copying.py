"""What a step changed in a working copy, found by comparison and written in overlay upper format.

`Before` remembers inode and ctime of everything in the fresh copy. Nobody can set a ctime back, so afterwards
what has both unchanged is unchanged, whatever was done to its size and mtime. What changed is moved, not copied,
into the layer: the working copy is thrown away.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from buildengine.values import dataclass
from cache.merged import is_whiteout
from cache.treecopy import Attributes, attributes, drop_overlay_xattrs
from cache.trees import open_directory

_Stamp = tuple[bool, int, int]  # is it a directory, inode, ctime
_MAX_TICK = 0.02  # the coarsest clock of a kernel ticks 100 times a second


@dataclass(slots=True)
class Before:
    """A tree as it was: directory -> name -> stamp."""

    listings: dict[str, dict[str, _Stamp]]


def remember(tree: Path) -> Before:
    """Look at a fresh working copy, and let the clock of its file system go on by a tick."""
    listings: dict[str, dict[str, _Stamp]] = {}
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        newest, waiting = 0, [""]
        while waiting:
            path = waiting.pop()
            listing = listings[path] = _listing(root, path)
            newest = max(newest, max((stamp[2] for stamp in listing.values()), default=0))
            waiting += [_join(path, name) for name, stamp in listing.items() if stamp[0]]
        _wait_for_tick(tree, newest)
        return Before(listings=listings)
    finally:
        os.close(root)


def _wait_for_tick(tree: Path, newest: int) -> None:
    """Return when a change would get a ctime later than `newest`."""
    probe = tree.with_suffix(".probe")
    end = time.monotonic() + _MAX_TICK
    probe.touch()
    while probe.stat().st_ctime_ns <= newest and time.monotonic() < end:
        time.sleep(0.001)
        os.utime(probe)
    probe.unlink()


def extract(tree: Path, before: Before, layer: Path) -> None:
    """Move what differs from `before` out of `tree` into the empty directory `layer`."""
    with _opened(tree) as root, _opened(layer) as target:
        work = _Extraction(root=root, target=target)
        waiting = [("", True)]
        while waiting:
            path, changed = waiting.pop()
            if changed:
                work.directory(path)
            waiting += work.compare(path, before.listings.get(path, {}))
        work.finish()


@dataclass(slots=True)
class _Extraction:
    root: int
    target: int
    made: dict[str, Attributes] = field(default_factory=dict)

    def directory(self, path: str) -> None:
        """Make `path` in the layer, and its parents."""
        missing = []
        while path not in self.made:
            missing.append(path)
            if not path:
                break
            path = path.rpartition("/")[0]
        for path in reversed(missing):
            with open_directory(self.root, path) as fd:
                self.made[path] = attributes(fd)
            if path:
                os.mkdir(path, dir_fd=self.target)

    def compare(self, path: str, before: dict[str, _Stamp]) -> list[tuple[str, bool]]:
        """Move the changed entries of one directory; its subdirectories, and whether they changed themselves."""
        now = _listing(self.root, path)
        below = []
        moved = []
        for name, stamp in now.items():
            if stamp[0]:
                below.append((_join(path, name), before.get(name) != stamp))
            elif before.get(name) != stamp:
                moved.append(name)
        gone = [name for name in before if name not in now]
        if moved or gone:
            self.directory(path)
            with open_directory(self.root, path) as source, open_directory(self.target, path) as target:
                for name in moved:
                    drop_overlay_xattrs(name, source)
                    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                for name in gone:
                    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=target)
        return below

    def finish(self) -> None:
        for path, found in self.made.items():
            with open_directory(self.target, path) as fd:
                found.apply(fd)


def _listing(root: int, path: str) -> dict[str, _Stamp]:
    """Whiteouts are left out: a step cannot make one where an overlay is, so it cannot here."""
    listing = {}
    with open_directory(root, path) as fd, os.scandir(fd) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            if not is_whiteout(info):
                listing[entry.name] = _stamp(info)
    return listing


def _stamp(info: os.stat_result) -> _Stamp:
    return stat.S_ISDIR(info.st_mode), info.st_ino, info.st_ctime_ns


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
