"""Making the store smaller, by BuildKit's rules (cache/manager.go: prune, pruneOnce, calculateKeepBytes).

What nobody holds and nothing was made on can go, and then what it was made on. With a limit on space it goes one
at a time, the least recently and least often used first, until the limit is met. Each deletion is a transaction
that looks again, so builds may run meanwhile. Records, links, blobs and trees that nothing needs any more follow.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from buildengine.builder import PrunePolicy, UsageInfo
from buildengine.limits import DISK, PATTERNS, offload
from buildengine.tracepoints import reach
from cache import blobs, cachemounts, explained, filters, layerrows, records, repositories, usage
from cache.removal import remove_tree

if TYPE_CHECKING:
    from cache.opened import Cache

_SPARED_KINDS = ("internal", "frontend")


async def prune(cache: Cache, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None:
    """Delete what `policy` does not spare, and what nothing needs any more then; each deleted record is told."""
    await shrink(cache, policy, on_record)
    limited = policy.filters or policy.keep_duration or _is_limited(policy)
    await collect(cache, everything=policy.all and not limited)


async def shrink(cache: Cache, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> int:
    """Delete what `policy` does not spare, and no more than that; how many records went. `collect` is to follow."""
    now = time.time()
    selects = await offload(partial(filters.parse, now=now), policy.filters, limiter=PATTERNS)
    await cache.sweep()
    cache.holds.expire()
    infos = await offload(usage.disk_usage, cache, limiter=DISK)
    sizes = {info.id: info.size for info in infos}
    total, keep = _space(infos, policy, shutil.disk_usage(cache.root).free)

    def may_go(info: UsageInfo) -> bool:
        if not policy.all and (info.kind in _SPARED_KINDS or info.shared):
            return False
        if policy.keep_duration and (info.last_used or info.created) > now - policy.keep_duration:
            return False
        return selects(info)

    deleted = 0
    while not keep or total > keep:
        chosen = await offload(lambda: [info for info in _candidates(cache, sizes) if may_go(info)], limiter=PATTERNS)
        if keep:
            chosen = by_use(chosen)
        gone = 0
        for info in chosen:
            if await _delete(cache, info):
                on_record(info)
                gone += 1
                total -= info.size
                if keep:
                    break
        deleted += gone
        if not gone:
            break
    return deleted


def is_over(infos: Sequence[UsageInfo], policy: PrunePolicy, free: int) -> bool:
    """Whether there may be something for `shrink` to do. `free` is what the disk has left."""
    total, keep = _space(infos, policy, free)
    return not keep or total > keep


def _is_limited(policy: PrunePolicy) -> bool:
    return bool(policy.max_used_space or policy.reserved_space or policy.min_free_space)


def _space(infos: Sequence[UsageInfo], policy: PrunePolicy, free: int) -> tuple[int, int]:
    """How much is used, and how much may stay; 0: no limit."""
    if not _is_limited(policy):
        return 0, 0
    total = sum(info.size for info in infos if not info.shared)
    return total, keep_bytes(total, free, policy)


def keep_bytes(total: int, free: int, policy: PrunePolicy) -> int:
    """As much as possible, less what must be freed, but not below what is reserved."""
    keep = policy.max_used_space
    excess = policy.min_free_space - free
    if excess > 0:
        keep = min(keep, total - excess) if keep else total - excess
    elif policy.min_free_space and not keep:
        keep = total
    return max(keep, policy.reserved_space)


def by_use(infos: Sequence[UsageInfo]) -> list[UsageInfo]:
    """Least worth keeping first: the sum of the ranks in last use and in number of uses, each from 0 to 1."""
    recency = _ranks([info.last_used or 0.0 for info in infos])
    frequency = _ranks([float(info.usage_count) for info in infos])
    order = sorted(range(len(infos)), key=lambda i: (recency[i] + frequency[i], infos[i].created, infos[i].id))
    return [infos[i] for i in order]


def _ranks(values: Sequence[float]) -> list[float]:
    distinct = {value: rank for rank, value in enumerate(sorted(set(values)), 1)}
    return [distinct[value] / len(distinct) for value in values]


def _candidates(cache: Cache, sizes: Mapping[str, int]) -> list[UsageInfo]:
    """What is neither in use nor built on."""
    infos = cache.db.read(usage.listing)
    needed = {parent for info in infos for parent in info.parents}
    leaves = [info for info in infos if not info.in_use and info.id not in needed]
    return leaves + [info for info in usage.directories(cache, sizes) if not info.in_use]


async def _delete(cache: Cache, info: UsageInfo) -> bool:
    """Whether it went: a build may have taken it since we looked."""
    if info.id.startswith(repositories.PREFIX):
        return await offload(repositories.delete, cache.root, cache.locks, info.id, limiter=DISK)
    if info.mutable:
        directory = cache.root / "cachemounts" / info.id
        gone = await cache.db.write(lambda c: cachemounts.delete(c, info.id))
    else:
        directory = cache.root / "layers" / info.id
        gone = await cache.db.write(lambda c: delete_layer(c, info.id))
    if gone:
        reach("layer.deleted")
        await offload(remove_tree, directory, limiter=DISK)
    return gone


def delete_layer(connection: sqlite3.Connection, id: str) -> bool:
    """Delete the row of a layer that nobody holds and nothing was made on; its directory is garbage then."""
    query = """SELECT 1 FROM layers WHERE id = ?1 AND state != 'active'
        AND NOT EXISTS (SELECT 1 FROM holds WHERE kind = 'layer' AND holds.id = ?1)"""
    if connection.execute(query, (id,)).fetchone() is None or layerrows.is_needed(connection, id):
        return False
    layerrows.delete(connection, id)
    return True


async def collect(cache: Cache, *, everything: bool = False) -> int:
    """Delete what nothing refers to any more; how many bytes of blobs that freed. Also after images were removed."""

    def write(connection: sqlite3.Connection) -> list[str]:
        records.collect_links(connection)
        connection.execute("DELETE FROM content_digests WHERE layer NOT IN (SELECT id FROM layers)")
        connection.execute("DELETE FROM file_digests WHERE layer NOT IN (SELECT id FROM layers)")
        if everything:
            connection.execute("DELETE FROM local_indexes")
            explained.forget_files(connection)
        held = {id for (id,) in connection.execute("SELECT id FROM holds WHERE kind = 'layer'")}
        rows = connection.execute("SELECT key, stack FROM trees").fetchall()
        unused = [key for key, stack in rows if not held.issuperset(json.loads(stack))]
        connection.executemany("DELETE FROM trees WHERE key = ?", [(key,) for key in unused])
        return unused

    for key in await cache.db.write(write):
        await offload(remove_tree, cache.root / "trees" / key, limiter=DISK)
    if everything:
        repositories.forget_answers(cache.root)
    cache.holds.expire()
    return await offload(blobs.collect, cache.db, cache.root / "blobs", limiter=DISK)
