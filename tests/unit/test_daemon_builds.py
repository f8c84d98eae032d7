"""Builds and bridges by their ids: who comes too early waits, who comes for nothing is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from buildengine.api import convert
from buildengine.api.bridges import Bridges
from buildengine.api.rpc import Code, RpcError
from buildengine.daemon.builds import KEPT, WAIT, Builds, Stopped
from buildengine.errors import BuildError
from buildengine.events import VertexEvent


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Builds]:
    async with trio.open_nursery() as nursery:
        yield Builds(directory, "me", nursery)
        nursery.cancel_scope.cancel()


async def test_a_build_is_found_while_it_runs_and_a_moment_longer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with opened(tmp_path) as builds:
        with builds.begun("a") as build:
            assert await builds.find("a") is build
        assert await builds.find("a") is build
        await trio.sleep(KEPT + 1)
        assert await builds.find("a", timeout=0) is None
    assert list(tmp_path.iterdir()) == []


async def test_what_the_history_has_is_forgotten_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as builds:
        with builds.begun("a") as build:
            build.is_recorded = True
        assert await builds.find("a", timeout=0) is None


async def test_who_follows_a_build_reads_it_to_its_end(tmp_path: Path) -> None:
    """However long that takes: the build and its file are gone long before."""
    async with opened(tmp_path) as builds:
        with builds.begun("a") as build:
            build.is_recorded = True
            build.journal.tell(VertexEvent(digest="d", name="step", started=1.0))
            following = build.used()
            journal = following.__enter__()
        assert list(tmp_path.iterdir()) == []
        events = [event async for response in journal.follow() for event in convert.events(response)]
        assert {event.name for event in events if isinstance(event, VertexEvent)} == {"step"}
        following.__exit__(None, None, None)


async def test_who_asks_too_early_waits(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with opened(tmp_path) as builds, trio.open_nursery() as nursery:
        began = trio.current_time()
        assert await builds.find("nobody") is None
        assert trio.current_time() - began == pytest.approx(WAIT)

        async def begin() -> None:
            await trio.sleep(WAIT / 2)
            with builds.begun("a"):
                await trio.sleep(1)

        nursery.start_soon(begin)
        assert await builds.find("a") is not None


async def test_a_ref_is_used_once_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as builds:
        with builds.begun("a"), pytest.raises(BuildError, match="job ID a exists"), builds.begun("a"):
            pass
        with builds.begun("a") as again:
            assert await builds.find("a") is again


async def test_stopping_ends_what_runs(tmp_path: Path) -> None:
    outcomes: list[str] = []

    async def run(builds: Builds) -> None:
        try:
            with builds.begun("a"):
                await trio.sleep_forever()
        except Stopped:
            outcomes.append("stopped")

    async with opened(tmp_path) as builds, trio.open_nursery() as nursery:
        nursery.start_soon(run, builds)
        await wait_all_tasks_blocked()
        assert await builds.stop() == 1
        assert outcomes == ["stopped"]
        with pytest.raises(Stopped), builds.begun("b"):
            pass


async def test_a_bridge_is_waited_for(autojump_clock: MockClock) -> None:
    bridges: Bridges[str] = Bridges()
    mine = (("buildkit-controlapi-buildid", "a"),)

    async def open_later() -> None:
        await trio.sleep(2)
        with bridges.opened("a", "the bridge"):
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_later)
        assert await bridges.find(mine) == "the bridge"
    began = trio.current_time()
    with pytest.raises(RpcError, match="no such job a") as caught:
        await bridges.find(mine)
    assert (caught.value.code, trio.current_time() - began) == (Code.NOT_FOUND, pytest.approx(3))
    for metadata in ((), mine * 2):
        with pytest.raises(RpcError, match="no buildid"):
            await bridges.find(metadata)
