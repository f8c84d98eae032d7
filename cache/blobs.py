"""The store's ledger: which blobs exist, in the database. A file in `blobs` without a row is garbage.

Implements `cache.store.Ledger`. Rename and row are one transaction, and so are the look at the row and the
deletion of an orphan; hence a sweeper never takes away what a writer has just placed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from buildengine.digest import Digest
from cache import documents
from cache.db import Database
from cache.durability import Durability
from cache.holds import Holds
from cache.store import BlobInfo

REFERENCED = """SELECT digest FROM layer_blobs UNION SELECT digest FROM image_blobs
    UNION SELECT remote_digest FROM layers WHERE remote_digest IS NOT NULL
    UNION SELECT digest FROM served_blobs UNION SELECT digest FROM served_manifests
    UNION SELECT id FROM holds WHERE kind = 'blob'"""
"""Every digest that something in the store needs."""


class BlobLedger:
    def __init__(self, db: Database, holds: Holds, durability: Durability) -> None:
        self._db = db
        self._holds = holds
        self._durability = durability

    def find(self, digest: Digest, *, pin: bool = True) -> int | None:
        """Pins what it finds: between a look and a use nobody prunes it."""
        size = self._db.read(lambda c: _size(c, digest))
        if size is None or not pin or self._holds.pinned("blob", digest):
            return size
        return self._db.write_nowait(lambda c: self._pin(c, digest))

    def admit(self, info: BlobInfo, place: Callable[[], None]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            if _size(connection, info.digest) is None:  # a durable blob is not replaced by one that is not yet
                place()
                connection.execute("INSERT INTO blobs (digest, size) VALUES (?, ?)", (info.digest, info.size))
                self._durability.mark(connection, "blob", info.digest)
            self._holds.pin(connection, "blob", info.digest)

        self._db.write_nowait(write)

    def forget(self, digest: Digest, remove: Callable[[], None]) -> None:
        self._db.write_nowait(lambda c: c.execute("DELETE FROM blobs WHERE digest = ?", (digest,)).rowcount)
        self._db.write_nowait(lambda c: _remove_orphan(c, digest, remove))

    def all(self) -> list[BlobInfo]:
        rows = self._db.read(lambda c: c.execute("SELECT digest, size FROM blobs ORDER BY digest").fetchall())
        return [BlobInfo(digest=Digest(digest), size=size) for digest, size in rows]

    def _pin(self, connection: sqlite3.Connection, digest: Digest) -> int | None:
        size = _size(connection, digest)
        if size is not None:
            self._holds.pin(connection, "blob", digest)
        return size


def collect(db: Database, blobs: Path) -> int:
    """Delete the blobs that nothing refers to; how many bytes that freed."""

    def write(connection: sqlite3.Connection) -> list[tuple[str, int]]:
        rows: list[tuple[str, int]] = connection.execute(
            f"SELECT digest, size FROM blobs WHERE digest NOT IN ({REFERENCED})"
        ).fetchall()
        connection.executemany("DELETE FROM blobs WHERE digest = ?", [(digest,) for digest, _ in rows])
        documents.forget(connection)
        return rows

    rows = db.write_nowait(write)
    for digest, _ in rows:
        remove_orphan(db, blobs, Digest(digest))
    return sum(size for _, size in rows)


def remove_orphan(db: Database, blobs: Path, digest: Digest) -> None:
    """Delete the file of a blob that has no row."""
    path = blobs / digest.algorithm / digest.hex
    db.write_nowait(lambda c: _remove_orphan(c, digest, lambda: path.unlink(missing_ok=True)))


def _remove_orphan(connection: sqlite3.Connection, digest: Digest, remove: Callable[[], None]) -> None:
    if _size(connection, digest) is None:
        remove()


def _size(connection: sqlite3.Connection, digest: Digest) -> int | None:
    row = connection.execute("SELECT size FROM blobs WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else int(row[0])
