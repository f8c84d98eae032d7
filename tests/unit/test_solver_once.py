"""A computation shared by waiters that come and go."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from solver.once import Once, Outcome


class Source:
    """Counts how often it is asked, and answers when it may."""

    def __init__(self) -> None:
        self.started = self.ended = 0
        self.may = trio.Event()
        self.error: Exception | None = None
        self.slow_to_end = trio.Event()
        self.slow_to_end.set()

    async def compute(self) -> int:
        self.started += 1
        try:
            await self.may.wait()
            if self.error is not None:
                raise self.error
            return 42
        finally:
            with trio.CancelScope(shield=True):
                await self.slow_to_end.wait()
            self.ended += 1


async def test_many_waiters_one_computation_and_later_ones_get_the_same() -> None:
    source, got = Source(), list[Outcome[int]]()
    async with trio.open_nursery() as nursery:
        once = Once(nursery, source.compute)
        assert source.started == 0
        once.join("a", got.append)
        once.join("b", got.append)
        source.may.set()
        await wait_all_tasks_blocked()
        once.join("c", got.append)
    assert got == [Outcome(value=42)] * 3
    assert source.started == 1


async def test_an_error_is_kept() -> None:
    source, got = Source(), list[Outcome[int]]()
    source.error = ValueError()
    source.may.set()
    async with trio.open_nursery() as nursery:
        once = Once(nursery, source.compute)
        once.join("a", got.append)
        await wait_all_tasks_blocked()
        once.join("b", got.append)
    assert [outcome.error for outcome in got] == [source.error] * 2
    assert source.started == 1


async def test_who_leaves_is_not_called_and_the_last_one_cancels() -> None:
    source, got = Source(), list[Outcome[int]]()
    async with trio.open_nursery() as nursery:
        once = Once(nursery, source.compute)
        once.join("a", got.append)
        once.join("b", got.append)
        await wait_all_tasks_blocked()
        once.leave("a")
        assert not once.ending
        once.leave("b")
        once.leave("b")
        assert once.ending
        await once.wait_ended()
        assert source.ended == 1
        await once.wait_ended()  # at once, when nothing ends
    assert got == []
    assert once.outcome is None


async def test_cancelled_before_it_began_it_never_begins() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        once = Once(nursery, source.compute)
        once.join("a", lambda _: None)
        once.leave("a")
    assert source.started == 0


async def test_who_joins_while_it_is_ending_waits_and_gets_a_new_one() -> None:
    source, got = Source(), list[Outcome[int]]()
    source.slow_to_end = trio.Event()
    async with trio.open_nursery() as nursery:
        once = Once(nursery, source.compute)
        once.join("a", got.append)
        await wait_all_tasks_blocked()
        once.leave("a")
        await wait_all_tasks_blocked()
        once.join("b", got.append)
        await wait_all_tasks_blocked()
        assert (source.started, source.ended) == (1, 0)
        source.slow_to_end.set()
        source.may.set()
    assert (source.started, source.ended) == (2, 2)
    assert got == [Outcome(value=42)]


async def test_when_its_nursery_ends_nobody_waits_for_ever() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        once = Once(nursery, source.compute)
        once.join("a", lambda _: None)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await once.wait_ended()
    assert source.ended == 1
