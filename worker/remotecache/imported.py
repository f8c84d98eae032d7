"""A cache that was read from a registry, as the solver asks it: `solver.vertex.CacheSource`.

What is imported is a graph of names and links, in memory for one build. Nothing of it enters the store but what was
a hit, and of that the layers stay where they are until somebody reads them.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import trio

from buildengine.digest import Digest
from buildengine.values import dataclass
from cache.layers import Layers, RemoteBlob
from solver import cachekey
from solver.vertex import CacheRecord, InputKeys
from worker.oci.chain import chain_ids
from worker.remotecache.document import CacheConfig, Result
from worker.results import Snapshot, Stack

_TRIED = 10  # results of one record


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedLayer:
    """A layer of a result: what it unpacks to, where it is, and what its image says of it."""

    diff_id: Digest
    blob: RemoteBlob
    created: float | None = None  # seconds since the epoch
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedConfig:
    """A cache config, and what its layers are. None: nobody offers that one, so its results cannot be had."""

    config: CacheConfig
    layers: tuple[ImportedLayer | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedResult:
    """The payload of a record: the layers of the result, base first."""

    layers: tuple[ImportedLayer, ...]


class KeyIndex:
    """The records of several configs as one graph, numbered through."""

    def __init__(self, configs: Sequence[ImportedConfig] = ()) -> None:
        self._roots: dict[str, list[int]] = defaultdict(list)
        self._targets: dict[tuple[int, str, int, str], list[int]] = defaultdict(list)
        self._owners: list[tuple[ImportedConfig, int]] = []
        for config in configs:
            self._add(config)

    def _add(self, config: ImportedConfig) -> None:
        first = len(self._owners)
        for number, record in enumerate(config.config.records):
            self._owners.append((config, number))
            if not record.inputs:
                self._roots[record.name].append(first + number)
            for index, links in enumerate(record.inputs):
                for link in links:
                    self._targets[first + link.record, record.name, index, link.selector].append(first + number)

    def roots(self, name: str) -> Sequence[int]:
        """The records without inputs that are called so: one of each config at most, if those are in order."""
        return self._roots.get(name, ())

    def targets(self, number: int, name: str, index: int, selector: str) -> Sequence[int]:
        return self._targets.get((number, name, index, selector), ())

    def contents(self, number: int, index: int) -> frozenset[Digest]:
        """The names of records without inputs that lead to this one's input `index` under no selector."""
        owner, local = self._owners[number]
        records = owner.config.records
        inputs = records[local].inputs
        links = inputs[index] if index < len(inputs) else ()
        found = [records[link.record] for link in links if not link.selector]
        return frozenset(Digest(record.name) for record in found if not record.inputs)

    def results(self, number: int) -> list[tuple[ImportedConfig, Result]]:
        """Newest first, and no more than anybody would try."""
        owner, local = self._owners[number]
        results = owner.config.records[local].results
        return [(owner, result) for result in sorted(results, key=lambda result: result.created, reverse=True)[:_TRIED]]


class ImportedCache:
    """One cache of one build. It is empty, and nobody asks it, until `fill`."""

    def __init__(self, layers: Layers) -> None:
        self._id = secrets.token_hex(8)  # another build's import of the same reference numbers its keys otherwise
        self._layers = layers
        self._index = KeyIndex()
        self._ready = trio.Event()
        self._added: dict[Digest, str] = {}  # the layers that this build has from here, by their chain ids

    def fill(self, index: KeyIndex) -> None:
        """This is what was imported; an empty one, when it could not be had."""
        self._index = index
        self._ready.set()

    async def ready(self) -> None:
        await self._ready.wait()

    def targets(self, op: Digest, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        name, selected = _name_of(op, output), cachekey.selector_name(keys.selector)
        found: set[int] = set()
        for key in keys.keys:
            selector = "" if cachekey.is_content_key(key) else selected
            for number in self._numbers(key):
                found.update(self._index.targets(number, name, index, selector))
        return frozenset([cachekey.imported_key(self._id, number) for number in found])

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        found = [
            (number, place, owner, result)
            for number in self._numbers(key)
            for place, (owner, result) in enumerate(self._index.results(number))
        ]
        records = []
        for number, place, owner, result in found:
            layers = [owner.layers[each] for each in owner.config.stack(result)]
            payload = ImportedResult(layers=tuple(layer for layer in layers if layer is not None))
            if layers and len(payload.layers) == len(layers):
                id = f"{cachekey.imported_key(self._id, number)}:{place}"
                records.append(CacheRecord(key=key, id=id, created=result.created, payload=payload))
        return tuple(records)

    async def load(self, record: CacheRecord) -> Snapshot | None:
        """The layers of the result, lazy where they are not here for another reason."""
        result: ImportedResult = record.payload
        stack: Stack = ()
        for layer, chain in zip(result.layers, chain_ids(layer.diff_id for layer in result.layers), strict=True):
            if chain not in self._added:
                self._added[chain] = await self._layers.add_remote(
                    parent=stack,
                    diff_id=layer.diff_id,
                    chain_id=chain,
                    remote=layer.blob,
                    description=layer.description,
                    created=layer.created,
                )
            stack = (*stack, self._added[chain])
        snapshot = Snapshot(self._layers, stack)  # hold first, then look: see `worker.cachestore`
        if all(self._layers.exists(id) for id in stack):
            return snapshot
        snapshot.release()
        self._added.clear()  # of another build's time
        return None

    def contents(self, key: str, index: int) -> frozenset[Digest]:
        if not cachekey.is_imported(key):
            return frozenset()
        return frozenset().union(*[self._index.contents(number, index) for number in self._numbers(key)])

    def _numbers(self, key: str) -> Sequence[int]:
        """The records that a key of the solver means here."""
        if not cachekey.is_imported(key):
            return self._index.roots(cachekey.name_of(key))
        number = cachekey.imported_number(self._id, key)
        return () if number is None else (number,)


@lru_cache(maxsize=2048)  # asked again for every input of an op
def _name_of(op: Digest, output: int) -> Digest:
    return cachekey.name_of(cachekey.root_key(op, output))
