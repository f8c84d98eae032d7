"""A `CacheStore` in memory: what the semantics of the protocol are, as code."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from buildengine.digest import Digest
from solver.cachekey import is_content_key
from solver.vertex import CacheRecord, InputKeys, Result

_Link = tuple[Digest, int, int, str, str]
"""op, output, number of the input, selector, key of the input"""


class MemoryCacheStore:
    """Holds a reference to each result that was saved, until `close`."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ids = itertools.count(1)
        self._links: dict[_Link, set[str]] = {}
        self._records: dict[str, list[CacheRecord]] = {}
        self._locks: dict[str, trio.Lock] = {}

    def targets(self, op: Digest, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        return frozenset().union(*[self._links.get(link, ()) for link in _links(op, output, index, keys)])

    def query(self, op: Digest, output: int, inputs: Sequence[InputKeys]) -> tuple[str, ...]:
        if not inputs:
            return ()
        found = [self.targets(op, output, index, keys) for index, keys in enumerate(inputs)]
        return tuple(sorted(frozenset.intersection(*found)))

    def add_key(self, op: Digest, output: int, inputs: Sequence[InputKeys]) -> str:
        known = self.query(op, output, [_deciding(keys) for keys in inputs])
        key = known[0] if known else f"key:{next(self._ids):08d}"
        for index, keys in enumerate(inputs):
            for link in _links(op, output, index, keys):
                self._links.setdefault(link, set()).add(key)
        return key

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        return tuple(reversed(self._records.get(key, ())))

    async def load(self, record: CacheRecord) -> Result | None:
        await trio.lowlevel.checkpoint()
        if record not in self._records.get(record.key, ()):
            return None
        result: Result = record.payload
        return result.clone()

    async def save(self, key: str, result: Result, *, created: float | None = None) -> None:
        await trio.lowlevel.checkpoint()
        made = self._clock() if created is None else created
        record = CacheRecord(key=key, id=str(next(self._ids)), created=made, payload=result.clone())
        self._records.setdefault(key, []).append(record)

    def contents(self, key: str, index: int) -> frozenset[str]:
        found = [link for link, targets in self._links.items() if link[2] == index and key in targets]
        return frozenset(link[4] for link in found if is_content_key(link[4]))

    @asynccontextmanager
    async def exclusive(self, key: str) -> AsyncIterator[None]:
        async with self._locks.setdefault(key, trio.Lock()):
            yield

    def forget(self, key: str | None = None) -> None:
        """Drop the records of one key, or all; keys and links stay, as after a prune."""
        for dropped in [key] if key is not None else [*self._records]:
            for record in self._records.pop(dropped, ()):
                record.payload.release()

    def close(self) -> None:
        self.forget()
        self._links.clear()


def _links(op: Digest, output: int, index: int, keys: InputKeys) -> list[_Link]:
    return [(op, output, index, "" if is_content_key(key) else keys.selector, key) for key in keys.keys]


def _deciding(keys: InputKeys) -> InputKeys:
    """Which keys of an input decide whether a target is known: content, where there is any."""
    content = tuple([key for key in keys.keys if is_content_key(key)])
    return InputKeys(selector=keys.selector, keys=content or keys.keys)
