"""What the registry of our own holds: repositories, and in each the blobs, manifests and tags that it names.

The bytes are blobs of the one content store; here are the rows that say which repository has which of them. What
a row names is kept (`cache.blobs.REFERENCED`), whoever else has it: the same blob may belong to ten repositories
and to a layer of the build cache, and is on disk once. A repository exists while it holds anything.

Every change is one transaction that looks before it writes, so that a manifest never comes to name a blob that was
deleted a moment ago. Rows need no flush to be whole (SQLite); they are marked, so that the next `sync` makes them
last. Must not know what a manifest means: what it refers to, and what it says of itself, is told by the caller.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence

from buildengine.digest import Digest
from buildengine.tracepoints import reach
from buildengine.values import dataclass
from cache.db import Database
from cache.durability import Durability


@dataclass(frozen=True, slots=True, kw_only=True)
class Referral:
    """What a manifest needs in its repository. A `size` is that of the blob; None: nobody said."""

    digest: Digest
    size: int | None = None
    is_manifest: bool | None = None
    """Whether it must be a manifest (True), a blob (False), or may be either (None)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedManifest:
    """One manifest of one repository. `descriptor` is how it is listed among the referrers of `subject`."""

    digest: Digest
    size: int
    media_type: str
    subject: Digest | None = None
    artifact_type: str = ""
    descriptor: str = ""


class ServedRepositories:
    """Reads are inline, changes are transactions in the writer thread."""

    def __init__(self, db: Database, durability: Durability) -> None:
        self._db = db
        self._durability = durability

    # --- looking --------------------------------------------------------------------------------------------------

    def exists(self, repository: str) -> bool:
        return self._db.read(lambda c: _exists(c, repository))

    def names(self, *, after: str = "", most: int) -> tuple[str, ...]:
        """The repositories, sorted by their bytes, from behind `after` on."""
        query = """SELECT repository FROM served_blobs WHERE repository > ?1
            UNION SELECT repository FROM served_manifests WHERE repository > ?1 ORDER BY repository LIMIT ?2"""
        return self._db.read(lambda c: tuple(name for (name,) in c.execute(query, (after, most))))

    def tags(self, repository: str, *, after: str = "", most: int) -> tuple[str, ...]:
        """As `names`: the order of the distribution-spec, "ASCIIbetical"."""
        query = "SELECT tag FROM served_tags WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?"
        return self._db.read(lambda c: tuple(tag for (tag,) in c.execute(query, (repository, after, most))))

    def tagged(self, repository: str, tag: str) -> Digest | None:
        query = "SELECT digest FROM served_tags WHERE repository = ? AND tag = ?"
        row = self._db.read(lambda c: c.execute(query, (repository, tag)).fetchone())
        return None if row is None else Digest(row[0])

    def blob(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob, when this repository has it."""
        query = f"SELECT size {_BLOB} AND repository = ?"
        row = self._db.read(lambda c: c.execute(query, (digest, repository)).fetchone())
        return None if row is None else int(row[0])

    def holder(self, digest: Digest) -> str | None:
        """Some repository that has this blob."""
        row = self._db.read(lambda c: c.execute(f"SELECT repository {_BLOB} LIMIT 1", (digest,)).fetchone())
        return None if row is None else str(row[0])

    def manifest(self, repository: str, digest: Digest) -> ServedManifest | None:
        found = self._manifests("AND m.digest = ?", repository, digest)
        return found[0] if found else None

    def referrers(
        self, repository: str, subject: Digest, *, artifact_type: str = "", after: str = "", most: int
    ) -> tuple[ServedManifest, ...]:
        """The manifests that name `subject` as theirs, by digest; of one artifact type, when one is given."""
        condition = "AND subject = ? AND m.digest > ? AND (?4 = '' OR artifact_type = ?4) ORDER BY m.digest LIMIT ?"
        return self._manifests(condition, repository, subject, after, artifact_type, most)

    def _manifests(self, condition: str, *values: str | int) -> tuple[ServedManifest, ...]:
        query = f"""SELECT m.digest, size, media_type, subject, artifact_type, descriptor FROM served_manifests AS m
            JOIN blobs ON blobs.digest = m.digest WHERE repository = ? {condition}"""
        rows = self._db.read(lambda c: c.execute(query, values).fetchall())
        return tuple(
            ServedManifest(
                digest=Digest(digest),
                size=size,
                media_type=media_type,
                subject=None if subject is None else Digest(subject),
                artifact_type=artifact_type,
                descriptor=descriptor,
            )
            for digest, size, media_type, subject, artifact_type, descriptor in rows
        )

    # --- changing -------------------------------------------------------------------------------------------------

    async def add_blob(self, repository: str, digest: Digest, *, source: str | None = None) -> bool:
        """Let `repository` have a blob of the store, or one that `source` has; whether it is there."""

        def write(connection: sqlite3.Connection) -> bool:
            query, values = "SELECT 1 FROM blobs WHERE digest = ?", [str(digest)]
            if source is not None:
                query, values = f"SELECT 1 {_BLOB} AND repository = ?", [str(digest), source]
            if connection.execute(query, values).fetchone() is None:
                return False
            insert = "INSERT OR IGNORE INTO served_blobs (repository, digest) VALUES (?, ?)"
            if connection.execute(insert, (repository, digest)).rowcount:
                self._durability.mark(connection, "served", repository)
            return True

        return await self._db.write(write)

    async def add_manifest(
        self, repository: str, manifest: ServedManifest, *, needs: Iterable[Referral], tags: Sequence[str]
    ) -> tuple[Referral, ...]:
        """Store a manifest, whose bytes are in the store, and let `tags` lead to it.

        What it needs and the repository lacks (or has in another size) is returned; then nothing was stored.
        """
        needs = tuple(dict.fromkeys(needs))

        def write(connection: sqlite3.Connection) -> tuple[Referral, ...]:
            missing = tuple(need for need in needs if not _has(connection, repository, need))
            if missing:
                return missing
            _insert(connection, repository, manifest, needs)
            for tag in tags:
                values = (repository, tag, manifest.digest)
                connection.execute(
                    "INSERT OR REPLACE INTO served_tags (repository, tag, digest) VALUES (?, ?, ?)", values
                )
            self._durability.mark(connection, "served", repository)
            return ()

        missing = await self._db.write(write)
        if not missing:
            reach("served.committed")
        return missing

    async def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob from one repository; whether it had it. The bytes go with the next `prune.collect`."""
        return await self._removed(repository, lambda c: _delete(c, "blobs", "digest", repository, digest))

    async def remove_tag(self, repository: str, tag: str) -> bool:
        return await self._removed(repository, lambda c: _delete(c, "tags", "tag", repository, tag))

    async def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """A manifest goes with the tags that lead to it."""
        return await self._removed(repository, lambda c: drop_manifest(c, repository, digest))

    async def _removed(self, repository: str, remove: Callable[[sqlite3.Connection], bool]) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            gone = remove(connection)
            if gone:
                self._durability.mark(connection, "served", repository)
            return gone

        return await self._db.write(write)


_BLOB = "FROM served_blobs JOIN blobs ON blobs.digest = served_blobs.digest WHERE served_blobs.digest = ?"


def drop_manifest(connection: sqlite3.Connection, repository: str, digest: str) -> bool:
    """Forget one manifest of one repository; whether it was there."""
    gone = _delete(connection, "manifests", "digest", repository, digest)
    _delete(connection, "references", "manifest", repository, digest)
    _delete(connection, "tags", "digest", repository, digest)
    return gone


def _delete(connection: sqlite3.Connection, table: str, column: str, repository: str, value: str) -> bool:
    """Of one repository the rows of a table whose `column` is `value`; whether there were any."""
    statement = f"DELETE FROM served_{table} WHERE repository = ? AND {column} = ?"
    return connection.execute(statement, (repository, value)).rowcount > 0


def drop_torn(connection: sqlite3.Connection, blobs: Iterable[str]) -> None:
    """These blobs are lost: so are the manifests that are or need one of them, and the indexes that need those."""
    waiting = list(blobs)
    while waiting:
        digest = waiting.pop()
        connection.execute("DELETE FROM served_blobs WHERE digest = ?", (digest,))
        query = """SELECT repository, digest FROM served_manifests WHERE digest = ?1
            UNION SELECT repository, manifest FROM served_references WHERE digest = ?1"""
        for repository, manifest in connection.execute(query, (digest,)).fetchall():
            if drop_manifest(connection, repository, manifest) and manifest != digest:
                waiting.append(manifest)


def _exists(connection: sqlite3.Connection, repository: str) -> bool:
    query = """SELECT EXISTS (SELECT 1 FROM served_blobs WHERE repository = ?1)
        OR EXISTS (SELECT 1 FROM served_manifests WHERE repository = ?1)"""
    return bool(connection.execute(query, (repository,)).fetchone()[0])


def _has(connection: sqlite3.Connection, repository: str, need: Referral) -> bool:
    tables = {True: ("manifests",), False: ("blobs",), None: ("manifests", "blobs")}[need.is_manifest]
    for table in tables:
        query = f"""SELECT size FROM served_{table} AS t JOIN blobs ON blobs.digest = t.digest
            WHERE t.repository = ? AND t.digest = ?"""
        row = connection.execute(query, (repository, need.digest)).fetchone()
        if row is not None and need.size in (None, row[0]):
            return True
    return False


def _insert(
    connection: sqlite3.Connection, repository: str, manifest: ServedManifest, needs: Iterable[Referral]
) -> None:
    connection.execute(
        """INSERT OR REPLACE INTO served_manifests
        (repository, digest, media_type, created, subject, artifact_type, descriptor) VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            repository,
            manifest.digest,
            manifest.media_type,
            time.time(),
            manifest.subject,
            manifest.artifact_type,
            manifest.descriptor,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO served_references (repository, manifest, digest) VALUES (?, ?, ?)",
        [(repository, manifest.digest, need.digest) for need in needs],
    )
