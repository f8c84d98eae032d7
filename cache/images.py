"""The local image store: names, the manifests or indexes they name, and which blobs those keep alive.

A name is an opaque string here (`docker.io/library/app:latest`); "" marks an image that no name leads to, a
dangling one. An image keeps its blobs, not its unpacked layers: those are cache, and made from blobs again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence

from buildengine.digest import Digest
from buildengine.errors import StoreError
from buildengine.tracepoints import reach
from buildengine.values import dataclass
from cache import documents
from cache.db import Database
from cache.durability import Durability


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One name of one image. `size` is that of all its blobs."""

    name: str
    digest: Digest
    created: float
    size: int


_SELECT = """SELECT name, digest, created, (SELECT coalesce(sum(blobs.size), 0) FROM image_blobs
    JOIN blobs ON blobs.digest = image_blobs.digest WHERE image = images.digest) FROM images"""


class ImageStore:
    def __init__(self, db: Database, durability: Durability) -> None:
        self._db = db
        self._durability = durability

    def list(self) -> tuple[StoredImage, ...]:
        """All, the newest first."""
        return self._select("ORDER BY created DESC, name")

    def find(self, name: str) -> StoredImage | None:
        """The image of this very name."""
        found = self._select("WHERE name = ? AND name != ''", name)
        return found[0] if found else None

    def by_digest(self, prefix: str) -> tuple[StoredImage, ...]:
        """All names of the images whose digest is, or whose hex digits begin with, `prefix`."""
        whole = prefix if ":" in prefix else f"sha256:{prefix}"
        return self._select("WHERE substr(digest, 1, length(?1)) = ?1 ORDER BY created DESC, name", whole)

    def blobs(self, digest: Digest) -> tuple[Digest, ...]:
        query = "SELECT digest FROM image_blobs WHERE image = ? ORDER BY digest"
        return self._db.read(lambda c: tuple(Digest(blob) for (blob,) in c.execute(query, (digest,))))

    async def add(
        self, digest: Digest, *, names: Sequence[str] = (), blobs: Iterable[Digest], chains: Iterable[Digest] = ()
    ) -> None:
        """Store an image whose `blobs` (all of them, its manifest too) are in the content store.

        A name that another image had leads here now. `chains` are the chain ids of its layers.
        """
        blobs, chains = dict.fromkeys([digest, *blobs]), dict.fromkeys(chains)

        def write(connection: sqlite3.Connection) -> None:
            for blob in blobs:
                if connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (blob,)).fetchone() is None:
                    raise StoreError(f"image {digest} lacks its blob {blob}")
            insert = "INSERT OR IGNORE INTO image_blobs (image, digest) VALUES (?, ?)"
            connection.executemany(insert, [(digest, blob) for blob in blobs])
            insert = "INSERT OR IGNORE INTO image_chains (image, chain) VALUES (?, ?)"
            connection.executemany(insert, [(digest, chain) for chain in chains])
            for name in names:
                _name(connection, name, digest)
            if not names:
                _settle(connection, digest)
            self._durability.mark(connection, "image", digest)

        await self._db.write(write)
        reach("image.committed")

    async def tag(self, digest: Digest, name: str) -> None:
        """One more name for a stored image."""

        def write(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT 1 FROM images WHERE digest = ?", (digest,)).fetchone() is None:
                raise StoreError(f"image {digest} is not in the store")
            _name(connection, name, digest)

        await self._db.write(write)

    async def untag(self, name: str) -> Digest | None:
        """Take away a name; the image goes with its last one. The digest of the image that went."""

        def write(connection: sqlite3.Connection) -> Digest | None:
            row = connection.execute("SELECT digest FROM images WHERE name = ? AND name != ''", (name,)).fetchone()
            if row is None:
                return None
            connection.execute("DELETE FROM images WHERE name = ?", (name,))
            if connection.execute("SELECT 1 FROM images WHERE digest = ?", row).fetchone() is not None:
                return None
            drop(connection, row[0])
            return Digest(row[0])

        return await self._db.write(write)

    async def remove(self, digest: Digest) -> tuple[str, ...]:
        """Remove an image with all its names, which are returned. Its blobs go with the next `prune.collect`."""

        def write(connection: sqlite3.Connection) -> tuple[str, ...]:
            rows = connection.execute("SELECT name FROM images WHERE digest = ? AND name != ''", (digest,)).fetchall()
            drop(connection, digest)
            return tuple(name for (name,) in rows)

        return await self._db.write(write)

    async def prune(self, *, all: bool = False) -> tuple[StoredImage, ...]:
        """Remove the dangling images, or all of them; those that went."""

        def write(connection: sqlite3.Connection) -> tuple[StoredImage, ...]:
            condition = "" if all else "WHERE name = ''"
            rows = connection.execute(f"{_SELECT} {condition} ORDER BY name").fetchall()
            gone = tuple(_image(row) for row in rows)
            for image in gone:
                drop(connection, image.digest)
            return gone

        return await self._db.write(write)

    def _select(self, condition: str, *values: str) -> tuple[StoredImage, ...]:
        rows = self._db.read(lambda c: c.execute(f"{_SELECT} {condition}", values).fetchall())
        return tuple(_image(row) for row in rows)


def drop(connection: sqlite3.Connection, digest: str) -> None:
    """Forget an image and its names."""
    for table in ("images WHERE digest", "image_blobs WHERE image", "image_chains WHERE image"):
        connection.execute(f"DELETE FROM {table} = ?", (digest,))
    connection.execute("DELETE FROM unsynced WHERE kind = 'image' AND id = ?", (digest,))


def _name(connection: sqlite3.Connection, name: str, digest: str) -> None:
    row = connection.execute("SELECT digest FROM images WHERE name = ?", (name,)).fetchone() if name else None
    connection.execute(
        "DELETE FROM images WHERE (name = ?1 AND name != '') OR (digest = ?2 AND name = '')", (name, digest)
    )
    connection.execute(
        "INSERT OR REPLACE INTO images (name, digest, created) VALUES (?, ?, ?)", (name, digest, time.time())
    )
    if name:
        documents.add_name(connection, name, digest)
    if row is not None and row[0] != digest:
        _settle(connection, row[0])


def _settle(connection: sqlite3.Connection, digest: str) -> None:
    """An image without a name is dangling."""
    if connection.execute("SELECT 1 FROM images WHERE digest = ?", (digest,)).fetchone() is None:
        connection.execute("INSERT INTO images (name, digest, created) VALUES ('', ?, ?)", (digest, time.time()))


def _image(row: Sequence[object]) -> StoredImage:
    name, digest, created, size = row
    return StoredImage(name=str(name), digest=Digest(digest), created=float(str(created)), size=int(str(size)))
