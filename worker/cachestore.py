"""The solver's `CacheStore` on the cache's key graph: results in, stacks of layers stored.

Only a Snapshot can be remembered. A local tree has no stable key and is never stored: its consumers are found
by the content they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from buildengine.digest import Digest
from cache.opened import Cache
from solver.vertex import CacheRecord, InputKeys, Result
from worker.results import Snapshot, Stack


def stack_of_record(record: CacheRecord) -> Stack:
    """The layers of what a record holds, whether or not they are still there."""
    return tuple(record.payload["stack"])


class WorkerCacheStore:
    """See `solver.vertex.CacheStore`; the semantics of each method stand there."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._records = cache.records

    def targets(self, op: Digest, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        return self._records.targets(op, output, index, keys)

    def query(self, op: Digest, output: int, inputs: Sequence[InputKeys]) -> tuple[str, ...]:
        return self._records.query(op, output, inputs)

    def add_key(self, op: Digest, output: int, inputs: Sequence[InputKeys]) -> str:
        return self._records.add_key(op, output, inputs)

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        return tuple(
            CacheRecord(key=key, id=record.id, created=record.created, payload=record.payload)
            for record in self._records.records(key)
        )

    async def load(self, record: CacheRecord) -> Result | None:
        """Hold first, then look: a concurrent prune either sees the hold or has already won."""
        snapshot = Snapshot(self._cache.layers, stack_of_record(record))
        if all(self._cache.layers.exists(layer) for layer in snapshot.stack):
            self._records.used(record.id, record.key)
            return snapshot
        snapshot.release()
        self._records.drop(record.id)
        return None

    async def save(self, key: str, result: Result, *, created: float | None = None) -> None:
        if isinstance(result, Snapshot):
            await self._records.save(key, {"stack": list(result.stack)}, created=created)

    def contents(self, key: str, index: int) -> frozenset[str]:
        return self._records.contents(key, index)

    def exclusive(self, key: str) -> AbstractAsyncContextManager[None]:
        return self._records.exclusive(key)
