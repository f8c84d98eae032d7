"""What is done beside something else."""

from __future__ import annotations

import pytest
import trio

from buildengine.daemon.beside import beside
from buildengine.errors import UserError


async def test_both_have_ended_after_the_block() -> None:
    done: list[str] = []
    begun = trio.Event()

    async def task() -> None:
        begun.set()
        await trio.lowlevel.checkpoint()
        done.append("task")

    async with beside(task):
        await begun.wait()  # they take turns
        done.append("block")
    assert sorted(done) == ["block", "task"]


async def test_the_error_of_the_block_is_in_no_group_and_the_task_is_done() -> None:
    done: list[str] = []

    async def task() -> None:
        await trio.lowlevel.checkpoint()
        done.append("task")

    with pytest.raises(UserError, match="no such place"):
        async with beside(task):
            raise UserError("no such place")
    assert done == ["task"]
