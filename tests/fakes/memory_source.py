"""A `CacheSource` in memory: what a build has exported, as its key graph says it."""

from __future__ import annotations

import trio

from buildengine.digest import Digest
from solver import cachekey
from solver.export import KeyGraph
from solver.vertex import CacheRecord, InputKeys, Result


class MemoryCacheSource:
    """Not ready before `fill`. Results stay those of the graph's records: whoever made them keeps them alive."""

    def __init__(self, id: str = "elsewhere") -> None:
        self._id = id
        self.graph = KeyGraph()
        self._ready = trio.Event()
        self.loaded: list[object] = []
        self.lose = False

    def fill(self, graph: KeyGraph) -> None:
        self.graph = graph
        self._ready.set()

    async def ready(self) -> None:
        await self._ready.wait()

    def targets(self, op: Digest, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        name = cachekey.name_of(cachekey.root_key(op, output))
        found = set()
        for number, key in enumerate(self.graph.keys):
            if key.name == name and index < len(key.inputs):
                for link in key.inputs[index]:
                    for asked in keys.keys:
                        selector = "" if cachekey.is_content_key(asked) else cachekey.selector_name(keys.selector)
                        if link.selector == selector and link.key in self._numbers(asked):
                            found.add(cachekey.imported_key(self._id, number))
        return frozenset(found)

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        return tuple(
            CacheRecord(key=key, id=f"{self._id}-{record.id}", created=record.created, payload=record.payload)
            for number in self._numbers(key)
            for record in self.graph.keys[number].records
        )

    async def load(self, record: CacheRecord) -> Result | None:
        await trio.lowlevel.checkpoint()
        if self.lose:
            return None
        self.loaded.append(record.payload.value)
        result: Result = record.payload
        return result.clone()

    def contents(self, key: str, index: int) -> frozenset[Digest]:
        number = cachekey.imported_number(self._id, key)
        if number is None:
            return frozenset()
        found = [self.graph.keys[link.key] for link in self.graph.keys[number].inputs[index] if not link.selector]
        return frozenset(key.name for key in found if not key.inputs)

    def _numbers(self, key: str) -> list[int]:
        number = cachekey.imported_number(self._id, key)
        if number is not None:
            return [number]
        if cachekey.is_imported(key):
            return []
        name = cachekey.name_of(key)
        return [number for number, one in enumerate(self.graph.keys) if one.name == name and not one.inputs]


def told(graph: KeyGraph) -> set[tuple[object, ...]]:
    """The graph whatever its numbers: each key with its links, by the names of all below, and its newest result."""
    ways: list[str] = []
    found: set[tuple[object, ...]] = set()
    for key in graph.keys:
        links = [sorted((ways[link.key], link.selector) for link in each) for each in key.inputs]
        ways.append(repr((key.name, links)))
        found.add((ways[-1], bool(key.records)))
    return found
