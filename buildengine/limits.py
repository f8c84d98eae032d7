"""The only door to threads: `await offload(fn, *args, limiter=HASH)`.

Give it whole files or whole steps of 1 MiB and more; a hop costs about 60 us. The work must release the GIL
(hashing, compression, file I/O) or be short. A cancelled caller waits for its thread: a thread that writes
into a snapshot must never outlive the block that owns the snapshot. So work that may take seconds asks meanwhile
whether it is `still_wanted`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from typing import TypeVar, TypeVarTuple

import trio

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")

_CPUS = len(os.sched_getaffinity(0))


class Limit(Enum):
    """What the threads compete for, and how many may compete at once. (Two of the same value would be one.)"""

    HASH = ("hash", _CPUS)
    COMPRESS = ("compress", _CPUS + 1)
    DISK = ("disk", 2 * _CPUS + 2)
    DB = ("db", 1)
    UNMOUNT = ("unmount", 2)
    PATTERNS = ("patterns", 4)  # of clients: who makes them take long keeps nobody else waiting
    PIPE = (
        "pipe",
        32,
    )  # of archives that somebody else reads or writes at his own pace: these wait more than they work

    @property
    def most(self) -> int:
        return self.value[1]


HASH, COMPRESS, DISK, DB, UNMOUNT, PATTERNS, PIPE = Limit


class _Limiters:
    """One CapacityLimiter per kind and per trio run (a limiter belongs to its run)."""

    def __init__(self) -> None:
        self._variable: trio.lowlevel.RunVar[dict[str, trio.CapacityLimiter]] = trio.lowlevel.RunVar("limiters")

    def get(self, limit: Limit) -> trio.CapacityLimiter:
        limiters = self._variable.get({})
        if limit.name not in limiters:
            limiters[limit.name] = trio.CapacityLimiter(limit.most)
            self._variable.set(limiters)
        return limiters[limit.name]


_LIMITERS = _Limiters()


async def offload(fn: Callable[[*_Ts], _T], *args: *_Ts, limiter: Limit) -> _T:
    """Run `fn(*args)` in a thread and return what it returns or raise what it raises."""
    return await trio.to_thread.run_sync(fn, *args, limiter=_LIMITERS.get(limiter))


def still_wanted() -> None:
    """In a thread of `offload`, between two pieces of long work: raises trio.Cancelled once its caller is cancelled."""
    trio.from_thread.check_cancelled()


def offload_later(fn: Callable[[*_Ts], object], *args: *_Ts, limiter: Limit) -> None:
    """Have `fn(*args)` run by a thread, soon: what nobody waits for. It must not raise, and ends before the trio run.

    Where no trio runs, or in a thread, it is done at once.
    """
    if trio.lowlevel.in_trio_task():
        trio.lowlevel.spawn_system_task(_unwaited, lambda: fn(*args), limiter)
    else:
        fn(*args)


async def _unwaited(fn: Callable[[], object], limiter: Limit) -> None:
    with trio.CancelScope(shield=True):
        await offload(fn, limiter=limiter)
