"""SQLite as the cache uses it: reads inline, writes as short transactions, errors as StoreError.

`read(fn)` and `write(fn)` lend `fn` a connection; it runs statements and returns a value. A write is one
BEGIN IMMEDIATE transaction, so inside it nothing else changes, in any thread or process: that is where
invariants are checked. WAL: readers never wait. synchronous=NORMAL: a commit survives the death of the process,
a power cut may take the newest commits back but never tears one (https://www.sqlite.org/wal.html, "Performance
Considerations"); after `flush` they survive it too.

Knows no table: see `cache.schema`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import trio

from buildengine.errors import StoreError
from buildengine.limits import DB, offload
from cache.diskerrors import explained

_T = TypeVar("_T")
_BUSY_SECONDS = 60.0


class Database:
    """A pool of connections to one file. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic, so this is all the locking

    def read(self, fn: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `fn` reads. Each statement sees the newest commit."""
        with self._lend() as connection:
            return fn(connection)

    def write_nowait(self, fn: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `fn` in a transaction, on this thread (some 50 us); an exception takes everything back."""
        with self._lend() as connection:
            connection.execute("BEGIN IMMEDIATE")
            result = fn(connection)
            connection.execute("COMMIT")
            return result

    async def write(self, fn: Callable[[sqlite3.Connection], _T]) -> _T:
        """`write_nowait` in the one writer thread: waiting for another process does not stop the event loop."""
        return await offload(self.write_nowait, fn, limiter=DB)

    async def write_soon(self, fn: Callable[[sqlite3.Connection], _T]) -> _T:
        """`write` of a few rows: on this thread, since to change threads takes longer, unless somebody writes now."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._lend() as connection:
            if _begin_at_once(connection):
                result = fn(connection)
                connection.execute("COMMIT")
                return result
        return await self.write(fn)

    def flush(self) -> None:
        """Return when every commit before this call survives a power cut. Blocks, but nobody else: synchronous=FULL
        would wait for the disk with the lock of all writers."""
        try:
            log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # somebody has written it back into the database, and synced that
        try:
            with explained(f"cannot write {self._path} to its disk"):
                os.fdatasync(log)
        finally:
            os.close(log)

    async def rest(self) -> None:
        """Close all connections; who asks next opens one again. To close the last one writes the log back (a while)."""
        await offload(self.close, limiter=DB)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _lend(self) -> Iterator[sqlite3.Connection]:
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            yield connection
        except sqlite3.Error as error:
            connection.close()  # closing rolls back
            raise _translated(error, self._path) from error
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise _translated(error, self._path) from error
        return connection


def _begin_at_once(connection: sqlite3.Connection) -> bool:
    """Begin to write; False when somebody else does."""
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000:.0f}")
    return True


def storable(text: str) -> str:
    """`text` as SQLite can hold it: what is no UTF-8 (a file name's bytes) is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _translated(error: sqlite3.Error, path: Path) -> StoreError:
    text = str(error)
    if "locked" in text:
        hint = f"another process has held {path} for {_BUSY_SECONDS:.0f} s; end it and try again"
    elif "full" in text or "I/O" in text or "readonly" in text or "unable to open" in text:
        hint = f"check the file system that holds {path}: free space, permissions, the kernel's log"
    elif isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and "malformed" not in text:
        hint = "run `pybuild debug verify-store`"
    else:
        hint = f"{path} is damaged: remove the state directory (a cache: builds make it anew)"
    return StoreError(f"the store's metadata: {text}", hint=hint)
