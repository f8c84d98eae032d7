"""Writing to the database: at once where nobody else writes, without stopping the event loop where somebody does."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from cache.db import Database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(tmp_path / "test.db")
    db.write_nowait(lambda c: c.execute("CREATE TABLE written (by TEXT)"))
    yield db
    db.close()


def written(db: Database) -> list[str]:
    return db.read(lambda c: [by for (by,) in c.execute("SELECT by FROM written")])


async def insert(db: Database) -> str:
    def write(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO written (by) VALUES ('us')")
        return threading.current_thread().name

    return await db.write_soon(write)


async def test_a_few_rows_are_written_on_the_thread_that_asks(db: Database) -> None:
    assert await insert(db) == threading.current_thread().name
    assert written(db) == ["us"]


async def test_while_another_process_writes_the_event_loop_goes_on(db: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO written (by) VALUES ('other')")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(insert, db)
        await trio.testing.wait_all_tasks_blocked()
        assert written(db) == []
        other.execute("COMMIT")
    assert written(db) == ["other", "us"]
    other.close()


async def test_what_fails_is_taken_back(db: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO written (by) VALUES ('us')")
        raise ValueError("not this")

    with pytest.raises(ValueError, match="not this"):
        await db.write_soon(fail)
    assert written(db) == []
    await insert(db)
    assert written(db) == ["us"]


def test_a_flush_syncs_the_log_and_takes_no_lock(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        db.flush()
    assert synced == [str(tmp_path / "test.db-wal")]


def test_without_a_log_there_is_nothing_to_flush(db: Database, tmp_path: Path) -> None:
    db.close()
    assert not (tmp_path / "test.db-wal").exists()
    db.flush()
