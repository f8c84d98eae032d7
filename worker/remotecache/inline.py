"""Exporting a cache into an image: the keys of its result, as far as the image's own layers are results of them.

This is BuildKit's mode `min`: whoever builds the same again needs no more than the image. A result whose layers are not
all in the image (of a stage that only files were copied from) has no layers here, but its key is there and what follows
from it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from buildengine.digest import Digest
from cache.layers import LayerMissing, Layers
from solver.export import KeyGraph
from solver.vertex import CacheRecord
from worker.remotecache.document import Link, Record, Result, inline_bytes
from worker.remotecache.imported import ImportedResult
from worker.results import Stack


def inline_cache(graph: KeyGraph, layers: Layers, stack: Stack, diff_ids: Sequence[Digest]) -> bytes:
    """The records for the config of an image with these layers, by id and by diff id; b"" when there are none."""
    places = _Places(layers, stack, diff_ids)
    records = [
        Record(
            name=key.name,
            inputs=tuple(
                tuple(Link(selector=link.selector, record=link.key) for link in links) for links in key.inputs
            ),
            results=places.result(key.records),
        )
        for key in graph.keys
    ]
    return inline_bytes(records)


class _Places:
    """Where the layers of results stand in the image."""

    def __init__(self, layers: Layers, stack: Stack, diff_ids: Sequence[Digest]) -> None:
        self._layers = layers
        self._stack = stack
        self._by_id: Mapping[str, int] = {id: number for number, id in reversed([*enumerate(stack)])}
        self._by_diff_id: Mapping[Digest, int] = {id: number for number, id in reversed([*enumerate(diff_ids)])}
        self._diff_ids = diff_ids

    def result(self, records: Sequence[CacheRecord]) -> tuple[Result, ...]:
        """The first of these results whose layers are in the image."""
        for record in records:
            found = self._of(record)
            if found:
                if found == tuple(range(len(found))):
                    return (Result(top=found[-1], created=record.created),)
                return (Result(layers=found, created=record.created),)
        return ()

    def _of(self, record: CacheRecord) -> tuple[int, ...]:
        """By their ids, else by what they hold: a layer that was imported twice has two ids."""
        if isinstance(record.payload, ImportedResult):
            diff_ids = [layer.diff_id for layer in record.payload.layers]
            if diff_ids == [*self._diff_ids[: len(diff_ids)]]:
                return tuple(range(len(diff_ids)))
            places = [self._by_diff_id.get(diff_id) for diff_id in diff_ids]
        else:
            stack = tuple(record.payload["stack"])
            if stack == self._stack[: len(stack)]:
                return tuple(range(len(stack)))
            places = [self._place(id) for id in stack]
        known = tuple(place for place in places if place is not None)
        return known if len(known) == len(places) else ()

    def _place(self, id: str) -> int | None:
        if id in self._by_id:
            return self._by_id[id]
        try:
            diff_id = self._layers.get(id).diff_id
        except LayerMissing:
            return None
        return None if diff_id is None else self._by_diff_id.get(diff_id)
