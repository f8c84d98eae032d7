"""What is remembered of builds: a record each, and its logs and errors as documents beside it.

    <root>/history.db       the records, as BuildKit's BuildHistoryRecord
    <root>/history/<hex>    documents by their sha256, as long as a record names them

A row comes before nothing and after its documents: a document without a row is garbage, swept at opening.
Facts: BuildKit solver/llbsolver/history.go.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path

import trio

from buildengine.api import records
from buildengine.daemon import historyfilters
from buildengine.digest import Digest
from buildengine.errors import BuildError, StoreError, UserError
from buildengine.history import Blob, BuildRecord, Happening, HistoryEvent, HistoryQuery
from buildengine.limits import DISK, HASH, PATTERNS, offload
from buildengine.values import dataclass
from cache.db import Database
from cache.diskerrors import explained

_FORMAT = 1
_EVERY = 120.0  # seconds between two collections
_TABLES = (
    """CREATE TABLE records (
        ref TEXT PRIMARY KEY, created REAL NOT NULL, completed REAL NOT NULL, pinned INTEGER NOT NULL,
        data BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE documents (digest TEXT NOT NULL, ref TEXT NOT NULL, PRIMARY KEY (digest, ref)) WITHOUT ROWID",
    "CREATE INDEX documents_ref ON documents (ref)",
    f"PRAGMA user_version={_FORMAT}",
)


class UnknownBuild(BuildError):
    """There is no record of that ref."""

    grpc_code = 5  # NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A record goes that is older than `max_age` seconds and not among the newest `max_entries`; pinned ones stay."""

    max_age: float = 48 * 3600.0
    max_entries: int = 50


@asynccontextmanager
async def open_history(root: Path, limits: Limits) -> AsyncIterator[History]:
    """The history of the store at `root`, of which this is the daemon. Raises StoreError."""
    with open_records(root, limits) as history:
        await history.sweep()
        await history.collect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(history.collect_forever)
            yield history
            nursery.cancel_scope.cancel()


@contextmanager
def open_records(root: Path, limits: Limits | None = None) -> Iterator[History]:
    """The same for who is not the daemon: nothing is deleted by itself. Raises StoreError."""
    with explained("cannot open the build history"):
        (root / "history").mkdir(mode=0o700, exist_ok=True)
    db = Database(root / "history.db")
    try:
        db.write_nowait(_prepare)
        yield History(db, root / "history", limits or Limits())
    finally:
        db.close()


def _prepare(connection: sqlite3.Connection) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        for statement in _TABLES:
            connection.execute(statement)
    elif version != _FORMAT:
        raise StoreError(
            f"history.db has format {version}, this pybuild has format {_FORMAT}", hint="remove history.db"
        )


class History:
    """Made by `open_history`. Whoever listens hears everything, in order, however slowly he listens."""

    def __init__(
        self, db: Database, directory: Path, limits: Limits, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = db
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._active: dict[str, BuildRecord] = {}
        self._listeners: set[trio.MemorySendChannel[HistoryEvent]] = set()
        self._heard: Counter[str] = Counter()  # refs that somebody listens to
        self._unnamed: Counter[str] = Counter()  # documents that a record is about to name
        self._doomed: set[str] = set()  # to be deleted when nobody does any more

    # --- builds

    def started(self, record: BuildRecord) -> None:
        self._active[record.ref] = record
        self._tell(Happening.STARTED, record)

    async def completed(self, record: BuildRecord, besides: Iterable[Blob] = ()) -> None:
        """Its documents are there already; `besides` are some that it does not name itself."""
        besides = tuple(besides)
        try:
            await self._db.write(lambda c: _put(c, record, besides))
        finally:
            self._active.pop(record.ref, None)
            self._unnamed -= Counter(blob.digest.hex for blob in (*record.blobs(), *besides))
        self._tell(Happening.COMPLETE, record)

    async def keep_file(self, path: Path, media_type: str) -> Blob:
        """Take the file `path` over as a document."""
        digest = Digest.of_hex(await offload(_hash, path, limiter=HASH))
        with explained("cannot write the build history"):
            size = path.stat().st_size
            path.rename(self._directory / digest.hex)
        return self._made(digest, size, media_type)

    def keep(self, data: bytes, media_type: str) -> Blob:
        """A small document."""
        digest = Digest.sha256(data)
        temporary = self._directory / f"{digest.hex}.part"
        with explained("cannot write the build history"):
            temporary.write_bytes(data)
            temporary.rename(self._directory / digest.hex)
        return self._made(digest, len(data), media_type)

    def _made(self, digest: Digest, size: int, media_type: str) -> Blob:
        self._unnamed[digest.hex] += 1
        return Blob(media_type=media_type, digest=digest, size=size)

    async def rest(self) -> None:
        """No build is near."""
        await self._db.rest()

    # --- whoever asks

    def find(self, ref: str) -> BuildRecord | None:
        """The record of a build that has ended."""
        row = self._db.read(lambda c: c.execute("SELECT data FROM records WHERE ref = ?", (ref,)).fetchone())
        return None if row is None else records.decode(row[0])

    def document(self, digest: Digest) -> AbstractContextManager[int | None]:
        """A descriptor of a document, for this block; None when there is none of that digest."""
        return opened(self._directory / digest.hex)

    def documents(self) -> set[Digest]:
        return {Digest.of_hex(name) for name in self._db.read(_documents)}

    @asynccontextmanager
    async def listen(self, query: HistoryQuery) -> AsyncIterator[AsyncIterator[HistoryEvent]]:
        """What is known: the builds that run, then those that have ended; and then what happens."""
        if query.ref in self._doomed:
            raise UnknownBuild(f"ref {query.ref} is deleted")
        known = self._there(query)
        told, news = trio.open_memory_channel[HistoryEvent](inf)
        self._listeners.add(told)
        self._heard[query.ref] += 1
        try:
            yield self._events(query, await offload(self._selected, query, known, limiter=PATTERNS), news)
        finally:
            self._listeners.discard(told)
            self._heard[query.ref] -= 1
            if not self._heard[query.ref]:
                del self._heard[query.ref]
                if query.ref in self._doomed:
                    with trio.CancelScope(shield=True):
                        await self.forget(query.ref)

    async def _events(
        self, query: HistoryQuery, known: list[HistoryEvent], news: trio.MemoryReceiveChannel[HistoryEvent]
    ) -> AsyncIterator[HistoryEvent]:
        for event in known:
            yield event
        while not query.early_exit:
            event = await news.receive()
            if query.ref in ("", event.record.ref):
                yield event

    def known(self, query: HistoryQuery) -> list[HistoryEvent]:
        """The builds that run, then those that have ended. Raises UserError. It may take long: of its filters."""
        return self._selected(query, self._there(query))

    def _there(self, query: HistoryQuery) -> tuple[list[BuildRecord], list[BuildRecord]]:
        """The builds that run, and those that have ended."""
        active = [record for record in self._active.values() if query.ref in ("", record.ref)]
        ended = () if query.active_only else self._ended(query.ref)
        return active, [record for record in ended if record.ref not in self._doomed]

    def _selected(self, query: HistoryQuery, there: tuple[list[BuildRecord], list[BuildRecord]]) -> list[HistoryEvent]:
        if query.limit < 0:
            raise UserError(f"invalid limit {query.limit}")
        selects = historyfilters.parse(query.filters, now=self._clock())
        active, ended = there
        events = [HistoryEvent(happening=Happening.STARTED, record=each) for each in active]
        ended = list(filter(selects, ended))
        if query.limit:
            ended = sorted(ended, key=lambda record: -record.created)[: query.limit]
        return events + [HistoryEvent(happening=Happening.COMPLETE, record=each) for each in ended]

    def _ended(self, ref: str = "") -> list[BuildRecord]:
        query = "SELECT data FROM records WHERE ?1 = '' OR ref = ?1 ORDER BY ref"
        return [records.decode(data) for (data,) in self._db.read(lambda c: c.execute(query, (ref,)).fetchall())]

    # --- changes

    async def pin(self, ref: str, *, pinned: bool) -> None:
        """Raises UnknownBuild."""
        record = self._known_record(ref)
        changed = replace(record, pinned=pinned, generation=record.generation + 1)
        await self._db.write(lambda c: _put(c, changed))
        self._tell(Happening.COMPLETE, changed)

    async def forget(self, ref: str) -> None:
        """Delete a record and what only it needs, now or when nobody listens to it any more. Raises UnknownBuild."""
        record = self._known_record(ref)
        if self._heard[ref]:
            self._doomed.add(ref)
            return
        self._doomed.discard(ref)
        for digest in map(Digest, await self._db.write(lambda c: _delete(c, ref))):
            if digest.hex not in self._unnamed:
                with suppress(OSError):
                    (self._directory / digest.hex).unlink(missing_ok=True)
        self._tell(Happening.DELETED, record)

    async def sweep(self) -> None:
        """Take away the documents that a daemon left which has died."""
        await offload(_sweep, self._directory, self._db.read(_documents), limiter=DISK)

    async def collect(self) -> None:
        """Delete what is too old and too much."""
        cut_off = self._clock() - self._limits.max_age
        unpinned = sorted((r for r in self._ended() if not r.pinned), key=lambda r: -(r.completed or 0))
        for record in unpinned[self._limits.max_entries :]:
            if (record.completed or 0) < cut_off:
                with suppress(UnknownBuild):
                    await self.forget(record.ref)

    async def collect_forever(self) -> None:
        while True:
            await trio.sleep(_EVERY)
            with suppress(BuildError):  # a broken store is told to whoever needs it: it is no end of the daemon
                await self.collect()

    def _known_record(self, ref: str) -> BuildRecord:
        record = self.find(ref)
        if record is None:
            raise UnknownBuild(f"failed to retrieve ref {ref}: there is no such build in the history")
        return record

    def _tell(self, happening: Happening, record: BuildRecord) -> None:
        for listener in self._listeners:
            listener.send_nowait(HistoryEvent(happening=happening, record=record))


@contextmanager
def opened(path: Path) -> Iterator[int | None]:
    """A descriptor for reading, for this block; None where there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(connection: sqlite3.Connection, record: BuildRecord, besides: Iterable[Blob] = ()) -> None:
    row = (record.ref, record.created, record.completed, record.pinned, records.encode(record))
    connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", row)
    named = {(blob.digest, record.ref) for blob in (*record.blobs(), *besides)}
    connection.executemany("INSERT OR IGNORE INTO documents VALUES (?, ?)", sorted(named))


def _delete(connection: sqlite3.Connection, ref: str) -> list[str]:
    """The digests that nothing names any more."""
    own = connection.execute("SELECT digest FROM documents WHERE ref = ?", (ref,)).fetchall()
    connection.execute("DELETE FROM records WHERE ref = ?", (ref,))
    connection.execute("DELETE FROM documents WHERE ref = ?", (ref,))
    query = "SELECT 1 FROM documents WHERE digest = ?"
    return [digest for (digest,) in own if connection.execute(query, (digest,)).fetchone() is None]


def _documents(connection: sqlite3.Connection) -> set[str]:
    return {Digest(digest).hex for (digest,) in connection.execute("SELECT digest FROM documents")}


def _sweep(directory: Path, known: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in known:
            path.unlink(missing_ok=True)
