"""What builds were made of, for `build --explain`: the newest few of each, and lists of the files that they read.

Both are opaque here. A build's is some hundred bytes a step, a list some 30 bytes a file. They are written when a
build has run a step, and read only when somebody asks. They outlive the records they tell of, since that a record is
gone is an answer too; `prune --all` takes the lists.

The table came after the store's format: it is made when it is first written to, and a pybuild that does not know it
leaves it alone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence

from buildengine.values import dataclass
from cache.db import Database

PER_SUBJECT = 16  # builds of one subject
UNNAMED = 50  # builds of none (the subject is "")
MOST_BUILDS = 500
MOST_BYTES = 64 << 20  # of everything

_TABLES = (
    """CREATE TABLE IF NOT EXISTS explained_builds (
        number INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, made REAL NOT NULL, data BLOB NOT NULL)""",
    # `build` is the newest one that has read these files: they go with it.
    """CREATE TABLE IF NOT EXISTS explained_lists (
        name TEXT PRIMARY KEY, build INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBuild:
    """`made` is in seconds since the epoch."""

    number: int
    made: float
    data: bytes


class Explained:
    def __init__(self, db: Database) -> None:
        self._db = db

    def builds(self, subject: str) -> tuple[KeptBuild, ...]:
        """Those of a subject, newest first."""
        return self._read(
            "SELECT number, made, data FROM explained_builds WHERE subject = ? ORDER BY number DESC", subject
        )

    def latest(self, count: int) -> tuple[KeptBuild, ...]:
        """Those of any subject, newest first."""
        return self._read("SELECT number, made, data FROM explained_builds ORDER BY number DESC LIMIT ?", count)

    def files(self, name: str) -> bytes | None:
        """The list of files of this name."""

        def read(connection: sqlite3.Connection) -> bytes | None:
            if not _exist(connection):
                return None
            row = connection.execute("SELECT data FROM explained_lists WHERE name = ?", (name,)).fetchone()
            return None if row is None else bytes(row[0])

        return self._db.read(read)

    def has_files(self, name: str) -> bool:
        query = "SELECT 1 FROM explained_lists WHERE name = ?"
        return self._db.read(lambda c: _exist(c) and c.execute(query, (name,)).fetchone() is not None)

    def would_hit(self, op: str, inputs: Sequence[Sequence[str]]) -> bool:
        """Whether there is a record of an operation over inputs with these keys, whatever it selects of them."""
        query = "SELECT target FROM links WHERE input = ? AND op = ? AND number = ?"

        def read(connection: sqlite3.Connection) -> bool:
            found: set[str] | None = None
            for number, keys in enumerate(inputs):
                leads = {target for key in keys for (target,) in connection.execute(query, (key, op, number))}
                found = leads if found is None else found & leads
            records = "SELECT 1 FROM records WHERE key = ?"
            return any(connection.execute(records, (key,)).fetchone() is not None for key in found or ())

        return self._db.read(read)

    def last_used(self, keys: Iterable[str]) -> float:
        """When a record of one of these keys was last of use; 0.0 where there is none."""
        query = "SELECT MAX(MAX(created, COALESCE(last_used, 0))) FROM records WHERE key = ?"
        found = self._db.read(lambda c: [c.execute(query, (key,)).fetchone()[0] for key in keys])
        return max((moment for moment in found if moment is not None), default=0.0)

    async def save(self, subject: str, data: bytes, files: Mapping[str, bytes], reads: Sequence[str]) -> None:
        """Remember one more build. `files` are new lists by name, `reads` the names of all that it has read."""
        await self._db.write(lambda c: _save(c, subject, data, files, reads))

    def _read(self, query: str, argument: str | int) -> tuple[KeptBuild, ...]:
        def read(connection: sqlite3.Connection) -> list[tuple[int, float, bytes]]:
            return connection.execute(query, (argument,)).fetchall() if _exist(connection) else []

        return tuple([KeptBuild(number=number, made=made, data=data) for number, made, data in self._db.read(read)])


def forget_files(connection: sqlite3.Connection) -> None:
    if _exist(connection):
        connection.execute("DELETE FROM explained_lists")


def _exist(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'explained_lists'"
    return connection.execute(query).fetchone() is not None


def _save(
    connection: sqlite3.Connection, subject: str, data: bytes, files: Mapping[str, bytes], reads: Sequence[str]
) -> None:
    for table in _TABLES:
        connection.execute(table)
    insert = "INSERT INTO explained_builds (subject, made, data) VALUES (?, ?, ?)"
    number = connection.execute(insert, (subject, time.time(), data)).lastrowid
    connection.executemany(
        "INSERT OR REPLACE INTO explained_lists (name, build, data) VALUES (?, ?, ?)",
        [(name, number, listing) for name, listing in files.items()],
    )
    connection.executemany("UPDATE explained_lists SET build = ? WHERE name = ?", [(number, name) for name in reads])
    connection.execute(
        """DELETE FROM explained_builds WHERE subject = ?1 AND number NOT IN (
            SELECT number FROM explained_builds WHERE subject = ?1 ORDER BY number DESC LIMIT ?2)""",
        (subject, PER_SUBJECT if subject else UNNAMED),
    )
    connection.execute(
        """DELETE FROM explained_builds WHERE number NOT IN (
            SELECT number FROM explained_builds ORDER BY number DESC LIMIT ?)""",
        (MOST_BUILDS,),
    )
    _drop_orphans(connection)
    while _size(connection) > MOST_BYTES:
        if not connection.execute(
            "DELETE FROM explained_builds WHERE number = (SELECT MIN(number) FROM explained_builds)"
        ).rowcount:
            break
        _drop_orphans(connection)


def _drop_orphans(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM explained_lists WHERE build NOT IN (SELECT number FROM explained_builds)")


def _size(connection: sqlite3.Connection) -> int:
    """LENGTH of a blob is in its row's header: the blobs are not read."""
    sums = [
        connection.execute(f"SELECT COALESCE(SUM(LENGTH(data)), 0) FROM {table}").fetchone()[0]
        for table in ("explained_builds", "explained_lists")
    ]
    return sum(sums)
