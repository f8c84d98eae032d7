"""Locks between tasks and between processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio
import trio.testing

from cache.locks import Locks

HOLD = """
import sys
from pathlib import Path
from cache.locks import Locks
lock = Locks(Path(sys.argv[1])).try_lock("name", shared=sys.argv[2] == "shared")
print("held" if lock else "busy", flush=True)
sys.stdin.read()
"""


def holder(directory: Path, how: str = "exclusive") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def test_another_process_excludes_us_until_it_dies(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    process = holder(tmp_path)
    assert locks.try_lock("name") is None
    assert locks.try_lock("name", shared=True) is None
    other = locks.try_lock("other")
    assert other is not None
    other.release()
    async with trio.open_nursery() as nursery:
        got = trio.Event()

        async def wait() -> None:
            async with locks.exclusive("name"):
                got.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not got.is_set()
        end(process)
    assert got.is_set()
    assert os.listdir(tmp_path) == []


async def test_shared_holders_keep_out_an_exclusive_one(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    process = holder(tmp_path, "shared")
    mine = locks.try_lock("name", shared=True)
    assert mine is not None
    assert locks.try_lock("name") is None
    end(process)
    assert locks.try_lock("name") is None
    mine.release()
    mine.release()
    alone = locks.try_lock("name")
    assert alone is not None
    alone.release()
    assert os.listdir(tmp_path) == []


async def test_tasks_take_turns_in_their_order(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    order: list[int] = []

    async def use(number: int) -> None:
        async with locks.exclusive("name"):
            order.append(number)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        lock = await locks.lock("name")
        for number in range(5):
            nursery.start_soon(use, number)
            await trio.testing.wait_all_tasks_blocked()
        lock.release()
    assert order == [0, 1, 2, 3, 4]


async def test_who_stops_waiting_holds_nothing(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    lock = await locks.lock("name")
    for _ in range(2):  # once in the queue of tasks, once at the file
        with trio.move_on_after(0.003):
            await locks.lock("name")
    lock.release()
    async with locks.exclusive("name"):
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


async def test_files_of_the_dead_are_swept(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    process = holder(tmp_path)
    async with locks.exclusive("mine"):
        locks.sweep()
        assert len(os.listdir(tmp_path)) == 2
        end(process)
        locks.sweep()
        assert len(os.listdir(tmp_path)) == 1
