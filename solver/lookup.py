"""What the cache knows about one edge: which targets its inputs lead to, and the records there.

The cache is the store, and beside it the sources that the jobs of the edge have named. A search goes through the store
and through each source on its own: no target has links in two of them. Records of the store come first, since what
a source has must be fetched.

Where only a source knows a key, the edge gets a key of the store's as well. So what follows can be stored, and nothing
that somebody else wrote down is: a link enters the store only for inputs that this build has had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from buildengine.digest import Digest
from solver import cachekey
from solver.edge import Input
from solver.messages import Found
from solver.vertex import CacheMap, CacheRecord, CacheSource, CacheStore, Dep, InputKeys


class FoundRecord(NamedTuple):
    """A record, and who has it: the store, or else a source."""

    record: CacheRecord
    cache: CacheStore | CacheSource
    is_imported: bool


class Lookup:
    """One edge's view of the key graph. It keeps what each input led to, so that only news is asked for."""

    __slots__ = ("_caches", "_deps", "_matches", "_output", "_records", "_sources", "_store", "ops")

    def __init__(
        self,
        store: CacheStore,
        cache_map: CacheMap,
        output: int,
        inputs: int,
        sources: Sequence[CacheSource] = (),
    ) -> None:
        self.ops: tuple[Digest, ...] = (cache_map.digest, *cache_map.aliases) if cache_map.stable else ()
        self._store = store
        self._sources = sources
        self._caches: tuple[CacheStore | CacheSource, ...] = (store, *sources)
        self._deps = cache_map.deps or (Dep(),) * inputs
        self._output = output
        self._matches: list[frozenset[str]] = [frozenset()] * inputs
        self._records: dict[str, FoundRecord] = {}

    def update(self, changed: Sequence[int], inputs: Sequence[Input]) -> Found:
        """Ask about the inputs in `changed`, and say what all inputs together lead to."""
        for index in changed:
            self._matches[index] = self._targets(index, inputs[index])
        keys = self._keys()
        if self._sources and keys and self._matches:
            keys = self._with_own(keys, inputs)
        self._records = {}
        for cache in self._caches:
            found = [record for key in keys for record in cache.records(key)]
            if len(keys) > 1:
                found.sort(key=lambda record: record.created, reverse=True)
            self._records |= {record.id: FoundRecord(record, cache, cache is not self._store) for record in found}
        return Found(
            matched=frozenset([index for index in changed if self._matches[index]]),
            keys=keys,
            records=tuple(self._records),
        )

    def record(self, id: str) -> FoundRecord:
        return self._records[id]

    def find(self, id: str) -> FoundRecord | None:
        return self._records.get(id)

    def add_keys(self, inputs: Sequence[InputKeys], output: int) -> tuple[str, ...]:
        """The store's keys of an output over inputs with these keys, one for each digest of the op; links are stored.

        None at all when the op is not stable.
        """
        if not inputs:
            return tuple([cachekey.root_key(op, output) for op in self.ops])
        if self._sources:
            inputs = [InputKeys(selector=one.selector, keys=_own(one.keys)) for one in inputs]
        return tuple([self._store.add_key(op, output, inputs) for op in self.ops])

    def input_keys(self, index: int, keys: tuple[str, ...], content: str | None) -> InputKeys:
        """The keys of an input under the selector of its dep."""
        return InputKeys(selector=self._deps[index].selector, keys=keys if content is None else (*keys, content))

    # --- for whoever exports the cache

    def selector(self, index: int) -> str:
        return self._deps[index].selector

    def contents(self, keys: Iterable[str], index: int) -> frozenset[Digest]:
        """The names of what input `index` may hold for these keys to be reached, as far as anybody wrote it down."""
        if self._deps[index].content_key is None:
            return frozenset()
        found: set[Digest] = set()
        for key in keys:
            found.update(map(cachekey.name_of, self._store.contents(key, index)))
            for source in self._sources:
                found |= source.contents(key, index)
        return frozenset(found)

    def known_records(self, keys: Iterable[str]) -> tuple[CacheRecord, ...]:
        """The records of these keys, those of the store first."""
        keys = tuple(keys)
        return tuple([record for cache in self._caches for key in keys for record in cache.records(key)])

    def _with_own(self, keys: tuple[str, ...], inputs: Sequence[Input]) -> tuple[str, ...]:
        """The store's keys first, one at least; those of sources as far as they mean the same."""
        own, imported = _own(keys), tuple(filter(cachekey.is_imported, keys))
        if not own:
            asked = [self.input_keys(index, one.keys, one.content) for index, one in enumerate(inputs)]
            return (*self.add_keys(asked, self._output), *imported)
        return (*own, *[key for key in imported if self._agree(key, own, inputs)])

    def _agree(self, imported: str, own: tuple[str, ...], inputs: Sequence[Input]) -> bool:
        """Not where both were reached by one definition and another content: an input was made twice, and differently.

        Then what follows elsewhere is not what follows here, and must not be stored as such.
        """
        for index, one in enumerate(inputs):
            theirs = self.contents((imported,), index).difference(map(cachekey.name_of, one.keys))
            ours = {cachekey.name_of(one.content)} if one.content is not None else self.contents(own, index)
            if theirs and ours and theirs.isdisjoint(ours):
                return False
        return True

    def _targets(self, index: int, one: Input) -> frozenset[str]:
        keys = self.input_keys(index, one.keys, one.content)
        asked = [(cache, op) for cache in self._caches for op in self.ops]
        return frozenset().union(*[cache.targets(op, self._output, index, keys) for cache, op in asked])

    def _keys(self) -> tuple[str, ...]:
        if not self._matches:
            return tuple([cachekey.root_key(op, self._output) for op in self.ops])
        if not all(self._matches):
            return ()
        return tuple(sorted(frozenset.intersection(*self._matches)))


def _own(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([key for key in keys if not cachekey.is_imported(key)])
