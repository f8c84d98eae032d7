"""What the daemon remembers of a build whose client goes at its very end, or whose documents cannot be kept."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from buildengine.api.daemon import BuildOrder
from buildengine.builder import BuildRequest
from buildengine.config import Config
from buildengine.daemon.engine import open_engine
from buildengine.daemon.history import Limits, open_history, open_records
from buildengine.daemon.service import Service, Settings, open_service
from buildengine.errors import StoreError
from buildengine.history import BuildRecord, Happening, HistoryQuery
from buildengine.limits import HASH, offload
from llb.state import mkdir, scratch


@asynccontextmanager
async def service(root: Path) -> AsyncIterator[Service]:
    async with (
        open_engine(Config(root=root)) as engine,
        open_history(engine.cache.root, Limits()) as history,
        open_service(engine, history, Settings()) as opened,
    ):
        yield opened


def order(ref: str, **options: str) -> BuildOrder:
    definition = scratch().file(mkdir("/srv"), name="make a directory").marshal()
    return BuildOrder(request=BuildRequest(ref=ref, frontend="", options=options), definition=definition)


async def written_down(daemon: Service, ref: str) -> None:
    """Until the build has ended, and what it has said is about to become a record."""
    async with daemon.status(ref) as told:
        async for _ in told:
            pass
    await wait_all_tasks_blocked(0.1)


async def test_a_client_that_goes_while_its_build_is_written_down(tmp_path: Path) -> None:
    """The build is done; that nobody waits for it any more is no reason to forget it, or to show it for ever."""
    gate = threading.Event()
    async with service(tmp_path / "root") as daemon, trio.open_nursery() as nursery:
        for _ in range(HASH.most):
            nursery.start_soon(partial(offload, gate.wait, limiter=HASH))
        await wait_all_tasks_blocked()
        client = trio.CancelScope()
        over = trio.Event()

        async def build() -> None:
            with client:
                await daemon.solve(order("a"))
            over.set()

        nursery.start_soon(build)
        await written_down(daemon, "a")
        client.cancel()
        await wait_all_tasks_blocked()
        gate.set()
        await over.wait()
        (known,) = daemon.history_store.known(HistoryQuery())
    assert known.happening is Happening.COMPLETE
    assert known.record.logs is not None


async def test_a_build_is_known_at_every_moment(tmp_path: Path) -> None:
    async with service(tmp_path / "root") as daemon, trio.open_nursery() as nursery:
        other = sqlite3.connect(tmp_path / "root" / "history.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # nobody else writes
        nursery.start_soon(daemon.solve, order("a"))
        await written_down(daemon, "a")
        assert [event.happening for event in daemon.history_store.known(HistoryQuery())] == [Happening.STARTED]
        other.close()


async def test_a_build_whose_documents_cannot_be_kept(tmp_path: Path) -> None:
    async with service(tmp_path / "root") as daemon:
        shutil.rmtree(tmp_path / "root" / "history")
        await daemon.solve(order("a"))
        (known,) = daemon.history_store.known(HistoryQuery())
        assert (known.happening, known.record.failure) == (Happening.COMPLETE, None)


async def test_a_document_that_is_to_be_named_again_stays(tmp_path: Path) -> None:
    """Two builds make the same image, and the older one is forgotten while the newer one is written down."""
    with open_records(tmp_path) as history:
        first = history.keep(b"same", "text/plain")
        await history.completed(BuildRecord(ref="old", created=1.0, completed=2.0), [first])
        again = history.keep(b"same", "text/plain")
        await history.forget("old")
        await history.completed(BuildRecord(ref="new", created=3.0, completed=4.0), [again])
        with history.document(again.digest) as fd:
            assert fd is not None
        await history.forget("new")
        with history.document(again.digest) as fd:
            assert fd is None


async def test_a_store_that_breaks_is_no_end_of_the_daemon(tmp_path: Path, autojump_clock: MockClock) -> None:
    (tmp_path / "root").mkdir()
    async with open_history(tmp_path / "root", Limits()) as history:
        with closing(sqlite3.connect(tmp_path / "root" / "history.db")) as other:
            other.execute("DROP TABLE records")
        await trio.sleep(1000)
        with pytest.raises(StoreError):
            await history.collect()
