"""The index of the user's own directories: one packed blob for each directory and ignore file, kept in the store.

Scanning 20,000 unchanged files is one look at each of their stamps; reading a file again is for those that are
new, changed, or were too young to be trusted (`cache.localscan`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from buildengine.errors import ContextError
from buildengine.limits import DISK, offload
from buildengine.tracepoints import reach
from cache.db import Database
from cache.localscan import Listings, LocalScan, Walk, slop_of
from cache.packed import pack, unpack
from cache.selection import Filter

_AFTER_BOOT_NS = 120_000_000_000  # a power cut may leave stamps of the last seconds with the bytes of before
_KEPT = 50  # directories


class LocalIndex:
    """What was found out about the directories of this host's users."""

    def __init__(self, db: Database, incarnation: str, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._db = db
        self._incarnation = incarnation
        self._clock = clock
        self._kept: dict[str, LocalScan] = {}

    async def scan(self, directory: Path, *, keep: Filter | None = None, filter_key: str = "") -> LocalScan:
        """Look at `directory`. `filter_key` names what `keep` does: directories are remembered apart by it.

        Raises ContextError. Close the scan, and `keep` it when it has been of use.
        """
        return await offload(self._scan, directory, keep, filter_key, limiter=DISK)

    async def scan_again(
        self, scan: LocalScan, directory: Path, only: Collection[bytes] | None, digests: Mapping[bytes, bytes]
    ) -> LocalScan:
        """A new scan of what was scanned whole, for whoever has changed it, and nobody else has: in the directories
        `only` (None: anywhere); `digests` are of files that he has written, which have no extended attributes. Both
        scans are to be closed. Raises ContextError."""
        return await offload(self._scan_again, scan, directory, only, digests, limiter=DISK)

    def _scan_again(
        self, scan: LocalScan, directory: Path, only: Collection[bytes] | None, digests: Mapping[bytes, bytes]
    ) -> LocalScan:
        seen = {"listings": scan.listings, "memo": scan.memo, "root": scan.top}
        names = None if only is None else {os.fsdecode(name) for name in only}
        again = self._look(directory, None, scan.key, seen, names, scan.changed)
        for path, digest in digests.items():
            again.learn(os.fsdecode(path), digest)
        return again

    def keep(self, scan: LocalScan) -> None:
        """Remember what `scan` has found out, also after it was closed, with the next `flush`."""
        self._kept[scan.key] = scan

    async def flush(self) -> None:
        """Write what is kept: once for a build, however many of its steps have looked at a directory."""
        kept, self._kept = self._kept, {}
        for scan in kept.values():
            await self.save(scan)

    async def save(self, scan: LocalScan) -> None:
        """Remember what `scan` has found out, now."""
        if not scan.changed:
            return
        data = await offload(self._packed, scan, limiter=DISK)
        oldest = "SELECT key FROM local_indexes ORDER BY used DESC LIMIT -1 OFFSET ?"

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO local_indexes (key, used, data) VALUES (?, ?, ?)", (scan.key, time.time(), data)
            )
            connection.execute(f"DELETE FROM local_indexes WHERE key IN ({oldest})", (_KEPT,))

        await self._db.write(write)
        scan.changed = False
        reach("index.committed")

    def _scan(self, directory: Path, keep: Filter | None, filter_key: str) -> LocalScan:
        key = _key(directory, filter_key)
        return self._look(directory, keep, key, self._load(key), None, False)

    def _look(
        self,
        directory: Path,
        keep: Filter | None,
        key: str,
        seen: Mapping[str, Any],
        only: Collection[str] | None,
        changed: bool,
    ) -> LocalScan:
        """`seen` is what an earlier look has found out; `changed` says that not all of it was saved."""
        try:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(f"cannot open the directory {directory}: {error.strerror}") from None
        try:
            started, top = self._clock(), _root_stamp(root)
            walk = Walk(root, seen["listings"], keep, only)
            memo = seen["memo"] if walk.same and seen["root"] == top else {}
        except BaseException:
            os.close(root)
            raise
        newest = started - slop_of(walk.listings)
        changed = changed or not walk.same
        return LocalScan(root, walk.listings, key=key, top=top, newest=newest, memo=memo, changed=changed)

    def _load(self, key: str) -> dict[str, Any]:
        row = self._db.read(lambda c: c.execute("SELECT data FROM local_indexes WHERE key = ?", (key,)).fetchone())
        stored: dict[str, Any] = (unpack(row[0]) if row else None) or {}
        if stored and stored["incarnation"] != self._incarnation:
            stored["listings"], _ = _without_young(stored["listings"], stored["started"] - _AFTER_BOOT_NS)
            stored["memo"] = {}
        return stored or {"listings": {}, "memo": {}, "root": None}

    def _packed(self, scan: LocalScan) -> bytes:
        listings, young = _without_young(scan.listings, scan.newest)
        memo = {} if young or scan.top[1] >= scan.newest else scan.memo
        started = self._clock()
        return pack(
            {"listings": listings, "memo": memo, "root": scan.top, "incarnation": self._incarnation, "started": started}
        )


def _key(directory: Path, filter_key: str) -> str:
    return blake3(os.fsencode(directory.absolute()) + b"\0" + filter_key.encode()).hexdigest(20)


def _root_stamp(root: int) -> tuple[int, int]:
    info = os.fstat(root)
    return info.st_mode, info.st_ctime_ns


def _without_young(listings: Listings, newest: int) -> tuple[Listings, bool]:
    """The same, but what has a ctime of `newest` or later will be taken for changed by the next scan."""
    young = False
    result: Listings = {}
    for path, listing in listings.items():
        result[path] = listing
        for name, (mode, size, mtime, ctime, inode, _) in listing.items():
            if ctime >= newest:
                young = True
                result[path] = {**result[path], name: (mode, size, mtime, 0, inode, None)}
    return result, young
