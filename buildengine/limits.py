"""The only door to threads: `await offload(fn, *args, limiter=HASH)`.

Give it whole files or whole steps of 1 MiB and more; a hop costs about 60 us. The work must release the GIL
(hashing, compression, file I/O) or be short. A cancelled caller waits for its thread: a thread that writes
into a snapshot must never outlive the block that owns the snapshot.
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
    """What the threads compete for, and how many may compete at once."""

    HASH = _CPUS
    COMPRESS = _CPUS + 1
    DISK = 2 * _CPUS + 2
    DB = 1
    PIPE = 32  # of archives that somebody else reads or writes at his own pace: these wait more than they work


HASH, COMPRESS, DISK, DB, PIPE = Limit.HASH, Limit.COMPRESS, Limit.DISK, Limit.DB, Limit.PIPE


class _Limiters:
    """One CapacityLimiter per kind and per trio run (a limiter belongs to its run)."""

    def __init__(self) -> None:
        self._variable: trio.lowlevel.RunVar[dict[str, trio.CapacityLimiter]] = trio.lowlevel.RunVar("limiters")

    def get(self, limit: Limit) -> trio.CapacityLimiter:
        limiters = self._variable.get({})
        if limit.name not in limiters:
            limiters[limit.name] = trio.CapacityLimiter(limit.value)
            self._variable.set(limiters)
        return limiters[limit.name]


_LIMITERS = _Limiters()


async def offload(fn: Callable[[*_Ts], _T], *args: *_Ts, limiter: Limit) -> _T:
    """Run `fn(*args)` in a thread and return what it returns or raise what it raises."""
    return await trio.to_thread.run_sync(fn, *args, limiter=_LIMITERS.get(limiter))
