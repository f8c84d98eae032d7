"""A user's directory as it was a moment ago: what is in it, and the digests of its files, read only if needed.

A file is known by its stamp (mode, size, mtime, ctime, inode). As long as the stamp stands, what was found out
about the file stands: nobody can set a ctime back. Except that a file changed within one tick of the clock has an
old stamp and new bytes; so what is as new as the scan is trusted for this scan only (git's racy rule,
Documentation/technical/racy-git.txt).

The scan is also what is copied from: whoever copies a file compares its stamp again afterwards (`is_current`), and
in the end everything that was to be copied (`cache.localcheck`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from buildengine.digest import Digest
from buildengine.errors import ContextChanged, ContextError
from buildengine.inroot import open_in_root
from buildengine.limits import HASH, offload
from buildengine.values import dataclass
from cache import filehash
from cache.contenthash import content_digest
from cache.hashtree import Place, resolve
from cache.selection import Filter, Selector, Verdict, selectors_key

Entry = tuple[int, int, int, int, int, Any]
"""mode, size (a device's number), mtime, ctime, inode; then what was found out: a link's target, or of a file or
directory its extended attributes followed (a file) by its digest; None: nothing yet."""

Listings = dict[str, dict[str, Entry]]

_ANOTHER = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))  # the name leads elsewhere now

TICK_NS = 20_000_000  # the coarsest kernel clock: CONFIG_HZ=100, twice
COARSE_NS = 2_000_000_000  # file systems with whole seconds (FAT: two)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEntry:
    """One entry, for copying. `path` is relative; `target` is a symlink's."""

    path: str
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    target: str | None = None


class LocalScan:
    """`cache.hashtree.Tree` of a user's directory. Owners do not count (they are root's in the image): 0.

    `close` it. `memo` maps selections to digests that hold as long as nothing at all has changed. A ctime of
    `newest` or later is not to be trusted beyond this scan.
    """

    def __init__(
        self,
        root: int,
        listings: Listings,
        *,
        key: str,
        top: tuple[int, int],
        newest: int,
        memo: Mapping[str, str],
        changed: bool,
    ) -> None:
        self.root = root
        self.listings = listings
        self.key = key
        self.top = top  # mode and ctime of the root itself
        self.newest = newest
        self.memo = dict(memo)
        self.changed = changed  # there is something to be saved
        self._lock = trio.Lock()

    def close(self) -> None:
        root, self.root = self.root, -1
        if root >= 0:
            os.close(root)

    # --- for the content key ------------------------------------------------------------------------------

    async def content_digest(self, selectors: Sequence[Selector] = (Selector(),)) -> Digest:
        """The digest of a selection, equal to that of the same files in a snapshot with root as their owner."""
        key = selectors_key(selectors)
        async with self._lock:
            if key not in self.memo:
                digest = await offload(content_digest, self, selectors, limiter=HASH)
                self.memo[key] = str(digest)  # marshal takes no subclass
                self.changed = True
            return Digest(self.memo[key])

    def resolve(self, path: str, *, follow: bool) -> Place | None:
        return resolve(path, self._look, follow=follow)

    @contextmanager
    def open(self, path: str) -> Iterator[_ScannedDirectory]:
        directory = _ScannedDirectory(self, path)
        try:
            yield directory
        finally:
            directory.close()

    def record(self, path: str) -> bytes:
        if not path:
            info = os.fstat(self.root)
            return filehash.record(info.st_mode, xattrs=filehash.xattrs_of(self.root))
        parent, _, name = path.rpartition("/")
        with self.open(parent) as directory:
            return directory.record(name)

    # --- for copying --------------------------------------------------------------------------------------

    def entries(self, path: str = "") -> Iterator[LocalEntry]:
        """All that is below directory `path`, a directory before what is in it, each directory sorted."""
        waiting = [path]
        while waiting:
            current = waiting.pop()
            prefix = current + "/" if current else ""
            directories = []
            for name, entry in sorted(self.listings.get(current, {}).items()):
                yield self._entry(prefix + name, entry)
                if stat.S_ISDIR(entry[0]):
                    directories.append(prefix + name)
            waiting += reversed(directories)

    def entry(self, path: str) -> LocalEntry | None:
        parent, _, name = path.rpartition("/")
        found = self.listings.get(parent, {}).get(name)
        return None if found is None else self._entry(path, found)

    def names(self, directory: str) -> Mapping[str, Entry]:
        """What is visible in a directory, by its relative path."""
        return self.listings.get(directory, {})

    def is_current(self, path: str, info: os.stat_result) -> bool:
        """Whether a file that was just read (fstat it after the last byte) is still what was scanned.

        A directory is as long as it is the same one with the same mode and attributes: what is in it is compared by
        itself.
        """
        parent, _, name = path.rpartition("/")
        found = self.listings.get(parent, {}).get(name)
        if found is None:
            return False
        if stat.S_ISDIR(found[0]):
            same = (found[0], found[4]) == (info.st_mode, info.st_ino)
            return same and (found[3] == info.st_ctime_ns or self._has_attributes(path, found, info))
        return found[:5] == stamp(info)

    def _has_attributes(self, path: str, entry: Entry, info: os.stat_result) -> bool:
        """Of a directory whose ctime is another one: something was put into it, which is no change of its own, or not.

        As long as its attributes were not asked for, only the first, which sets the mtime too, is told from the second.
        """
        if entry[5] is None:
            return bool(entry[2] != info.st_mtime_ns)
        try:
            fd = open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
        except OSError:
            return False
        try:
            return bool(filehash.xattrs_of(fd) == entry[5])
        finally:
            os.close(fd)

    def learn(self, path: str, digest: bytes, xattrs: bytes = b"") -> None:
        """Somebody has read a whole file, which `is_current`, and hashed it: nobody needs to read it again."""
        parent, _, name = path.rpartition("/")
        self.remember(parent, name, xattrs + digest)

    # --- inside -------------------------------------------------------------------------------------------

    def remember(self, parent: str, name: str, value: bytes | str) -> None:
        listing = self.listings[parent]
        entry = listing[name]
        listing[name] = (*entry[:5], value)
        self.changed = True

    def _look(self, path: str) -> tuple[bool, str | None] | None:
        parent, _, name = path.rpartition("/")
        entry = self.listings.get(parent, {}).get(name)
        if entry is None:
            return None
        return stat.S_ISDIR(entry[0]), entry[5] if stat.S_ISLNK(entry[0]) else None

    def _entry(self, path: str, entry: Entry) -> LocalEntry:
        mode, size, mtime, ctime, inode, found = entry
        target = found if stat.S_ISLNK(mode) else None
        return LocalEntry(path=path, mode=mode, size=size, mtime_ns=mtime, ctime_ns=ctime, inode=inode, target=target)


class _ScannedDirectory:
    """Opened on disk only when something has to be read."""

    __slots__ = ("_fd", "_listing", "_path", "_scan")

    def __init__(self, scan: LocalScan, path: str) -> None:
        self._scan = scan
        self._path = path
        self._listing = scan.listings[path]
        self._fd = -1

    @property
    def entries(self) -> Sequence[tuple[str, bool]]:
        return sorted([(name, stat.S_ISDIR(entry[0])) for name, entry in self._listing.items()])

    def record(self, name: str) -> bytes:
        mode, size, _, _, _, found = self._listing[name]
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFLNK:
            return filehash.record(mode, link=os.fsencode(found))
        if found is None:
            found = self._read(name)
            self._scan.remember(self._path, name, found)
        if kind == stat.S_IFREG:
            return filehash.record(mode, size=size, xattrs=found[:-32], content=found[-32:])
        return filehash.record(mode, rdev=0 if kind == stat.S_IFDIR else size, xattrs=found)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _read(self, name: str) -> bytes:
        path = f"{self._path}/{name}" if self._path else name
        try:
            value = self._value(name, self._listing[name])
        except OSError as error:
            if error.errno not in _ANOTHER:
                raise ContextError(f"cannot read {path} in the build context: {error.strerror}") from None
            value = None
        if value is None:
            raise ContextChanged(path)
        return value

    def _value(self, name: str, entry: Entry) -> bytes | None:
        """What counts of the contents. None: it is not what was scanned."""
        if self._fd < 0:
            self._fd = open_in_root(self._scan.root, self._path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
        if not stat.S_ISREG(entry[0]):
            return filehash.xattrs_of(f"/proc/self/fd/{self._fd}/{name}")
        fd = filehash.open_file(self._fd, name)
        try:
            if stamp(os.fstat(fd)) != entry[:5]:
                return None
            value = filehash.xattrs_of(fd) + filehash.hash_open_file(fd, entry[1])
            return value if stamp(os.fstat(fd)) == entry[:5] else None
        finally:
            os.close(fd)


def stamp(info: os.stat_result) -> tuple[int, int, int, int, int]:
    mode = info.st_mode
    size = info.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else info.st_size
    return mode, size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino


class Walk:
    """One look at everything below `root` that `keep` keeps. `same`: it is all as in `old`.

    With `only`, of the directories in `old` just these are looked at.
    """

    def __init__(self, root: int, old: Listings, keep: Filter | None, only: Collection[str] | None = None) -> None:
        self._root = root
        self._old = old
        self._keep = keep
        self._unsure: list[str] = []  # directories that are kept only for what is in them
        self._new: list[tuple[str, str]] = []
        self.listings: Listings = {}
        waiting = [""]
        while waiting:
            path = waiting.pop()
            waiting += self._list(path) if only is None or path in only or path not in old else self._take(path)
        self._drop_empty()
        self.same = self._compare()

    def _take(self, path: str) -> list[str]:
        """One directory as it was; its subdirectories."""
        listing = self.listings[path] = dict(self._old[path])
        prefix = path + "/" if path else ""
        return [prefix + name for name, entry in listing.items() if stat.S_ISDIR(entry[0])]

    def _list(self, path: str) -> list[str]:
        """One directory; its subdirectories. The loop body runs for every file of every context: it is fast."""
        old, keep = self._old.get(path, {}), self._keep
        listing = self.listings[path] = {}
        directories: list[str] = []
        prefix = path + "/" if path else ""
        fd = _open(self._root, path)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = entry.name
                    is_dir = entry.is_dir(follow_symlinks=False)
                    if keep is not None and not self._kept(keep(prefix + name, is_dir), prefix + name, is_dir):
                        continue
                    try:
                        info = entry.stat(follow_symlinks=False)
                        was = old.get(name)
                        if (
                            was is not None
                            and was[3] == info.st_ctime_ns
                            and was[4] == info.st_ino
                            and was[2] == info.st_mtime_ns
                            and was[0] == info.st_mode
                            and (was[1] == info.st_size or is_dir or was[:5] == stamp(info))
                        ):
                            listing[name] = was
                        elif not stat.S_ISSOCK(info.st_mode):
                            target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(info.st_mode) else None
                            listing[name] = (*stamp(info), target)
                            self._new.append((path, name))
                    except FileNotFoundError:
                        continue  # it went while we looked: as if we had come later
                    if is_dir:
                        directories.append(prefix + name)
        finally:
            os.close(fd)
        return directories

    def _kept(self, verdict: Verdict, path: str, is_dir: bool) -> bool:
        if verdict is Verdict.SKIP and is_dir:
            self._unsure.append(path)
            return True
        return verdict is Verdict.KEEP

    def _drop_empty(self) -> None:
        for path in reversed(self._unsure):
            if path in self.listings and not self.listings[path]:
                parent, _, name = path.rpartition("/")
                del self.listings[path], self.listings[parent][name]

    def _compare(self) -> bool:
        if any(name in self.listings.get(path, {}) for path, name in self._new):
            return False
        return {path: len(found) for path, found in self.listings.items()} == {
            path: len(found) for path, found in self._old.items()
        }


def _open(root: int, path: str) -> int:
    try:
        return open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        raise ContextChanged(path) from None
    except OSError as error:
        raise ContextError(f"cannot read {path or '.'} in the build context: {error.strerror}") from None


def slop_of(listings: Listings) -> int:
    """How far a stamp of this file system may lag behind the clock."""
    for listing in listings.values():
        for entry in listing.values():
            if entry[3] % 1_000_000_000:
                return TICK_NS
    return COARSE_NS
