"""Threads: what is waited for, what is not, and how many there are."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
import trio

from buildengine.limits import DISK, UNMOUNT, Limit, offload, offload_later, still_wanted
from tests.unit.layers_trees import archive, file
from worker.layers.apply import apply


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


def test_a_layer_that_nobody_wants_any_more_is_not_unpacked_to_its_end(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    class Blob(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1 << 20:  # some of it is unpacked
                begun.set()
                go.wait()
            return super().read(size)

    blob = Blob(archive(file(b"large", bytes(8 << 20))))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unpack)
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
            go.set()

    async def unpack() -> None:
        with pytest.raises(trio.Cancelled):
            await offload(lambda: apply(blob, tmp_path, before_each=still_wanted), limiter=DISK)
        await trio.lowlevel.checkpoint()

    trio.run(main)
    assert blob.tell() < 4 << 20
