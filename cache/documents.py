"""The documents of images (manifests, indexes, configs), each for the repositories that are known to have it.

A digest is no secret: it stands in logs, provenance and Dockerfiles. Who knows one must not get the bytes by that
alone, when another user of this store was allowed to pull them; so a document counts for `host/path` only after that
repository has sent it once, or when an image of the local store has a name there.

containerd keeps the same in labels, `containerd.io/distribution.source.<host>`; BuildKit goes by these and otherwise
asks the registry whether it has the digest (util/pull/pull.go, tryLocalResolve). Here it must send the document: a
registry that says that it has everything may be anybody's, and could name in an index of its own what it never had.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.reference import parse_repository
from cache.db import Database
from cache.store import ContentStore

# Beside the format's tables: a store that was made before has none, and who knows nothing of it does not miss it.
_TABLE = """CREATE TABLE document_origins (
    digest TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, repository)) WITHOUT ROWID"""
_KNOWN = """SELECT 1 FROM document_origins WHERE digest = ?1 AND repository = ?2 UNION ALL
    SELECT 1 FROM image_blobs JOIN document_origins AS named ON named.digest = image_blobs.image
    WHERE image_blobs.digest = ?1 AND named.repository = ?2 LIMIT 1"""


class Documents:
    def __init__(self, db: Database, store: ContentStore) -> None:
        self._db = db
        self._store = store

    def read(self, digest: Digest, repository: str, *, limit: int) -> bytes | None:
        """The document, verified; None when it is not here, or not known to be in `repository`."""
        if not self._is_known(digest, repository) or self._store.info(digest) is None:
            return None
        return self._store.read(digest, limit=limit)

    def keep(self, documents: Iterable[bytes], repository: str) -> None:
        """Keep what `repository` has sent until the next prune."""
        for raw in documents:
            digest = Digest.sha256(raw)
            if self._store.info(digest) is None:
                self._store.put(raw)
            if not self._is_known(digest, repository):
                self._db.write_nowait(partial(_add, digest=digest, repository=repository))

    def _is_known(self, digest: Digest, repository: str) -> bool:
        return self._db.read(lambda c: c.execute(_KNOWN, (digest, repository)).fetchone()) is not None


def create(connection: sqlite3.Connection) -> None:
    """Make the table where it is missing; what a store knows already is the names of its images."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'document_origins'").fetchone() is None:
        connection.execute(_TABLE)
        for name, digest in connection.execute("SELECT name, digest FROM images WHERE name != ''").fetchall():
            add_name(connection, name, digest)


def add_name(connection: sqlite3.Connection, name: str, digest: str) -> None:
    """Who gives an image of the local store a name has all of it: its documents count for that repository."""
    with suppress(UserError):  # a name is an opaque string to the store; what is no reference nobody builds on
        _add(connection, digest, parse_repository(name).name)


def forget(connection: sqlite3.Connection) -> None:
    """Drop what is known of blobs that are gone."""
    connection.execute("DELETE FROM document_origins WHERE digest NOT IN (SELECT digest FROM blobs)")


def _add(connection: sqlite3.Connection, digest: str, repository: str) -> None:
    insert = "INSERT OR IGNORE INTO document_origins (digest, repository) VALUES (?, ?)"
    connection.execute(insert, (digest, repository))
