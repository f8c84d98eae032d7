"""The garbage collector: after a build the store is made smaller, by the rules of `[worker]`.

At most once a minute for each store, whoever builds: the time of a stamp in it tells when. Between two runs it
costs a build one look at that stamp.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from buildengine.config import WorkerConfig
from buildengine.errors import BuildError
from buildengine.limits import DISK, offload
from cache.opened import Cache

STAMP = "collected"
INTERVAL = 60.0  # seconds between two collections


async def collect_garbage(cache: Cache, config: WorkerConfig) -> None:
    """Run the rules whose limits are exceeded. The build is done: what goes wrong here is not its error."""
    with suppress(BuildError, OSError, sqlite3.Error):  # the next who needs what is broken there will say so
        if config.gc and _is_due(cache.root / STAMP):
            await _collect(cache, config)


def _is_due(stamp: Path) -> bool:
    """Whether it is time again; then the stamp is new, so that no other process begins as well."""
    with suppress(FileNotFoundError):
        if 0 <= time.time() - stamp.stat().st_mtime < INTERVAL:
            return False
    os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.utime(stamp)
    return True


async def _collect(cache: Cache, config: WorkerConfig) -> None:
    from cache import prune, usage

    disk = shutil.disk_usage(cache.root)
    infos = await offload(usage.disk_usage, cache, limiter=DISK)
    gone = 0
    for policy in config.prune_policies(disk.total):
        if prune.is_over(infos, policy, disk.free):
            gone += await prune.shrink(cache, policy, lambda _: None)
    if gone:
        await prune.collect(cache)
