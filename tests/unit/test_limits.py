"""Threads: what is waited for, what is not, and how many there are."""

from __future__ import annotations

import threading

import trio

from buildengine.limits import UNMOUNT, Limit, offload, offload_later


def test_what_nobody_waits_for_is_done_by_another_thread_before_the_run_ends() -> None:
    done: list[threading.Thread] = []
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait()
        done.append(threading.current_thread())

    async def main() -> None:
        offload_later(slow, limiter=UNMOUNT)
        await trio.to_thread.run_sync(begun.wait)
        assert done == []
        go.set()

    trio.run(main)
    assert len(done) == 1
    assert done[0] is not threading.current_thread()


def test_in_a_thread_it_is_done_at_once() -> None:
    done: list[threading.Thread] = []

    def both() -> threading.Thread:
        offload_later(lambda: done.append(threading.current_thread()), limiter=UNMOUNT)
        assert done == [threading.current_thread()]
        return threading.current_thread()

    async def main() -> threading.Thread:
        return await offload(both, limiter=UNMOUNT)

    assert trio.run(main) is not threading.current_thread()


def test_each_kind_of_work_has_its_own_threads() -> None:
    """However many processors there are: equal values of an enumeration would be one."""
    assert len({limit.name for limit in Limit}) == 7
