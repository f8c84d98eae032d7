"""What the store knows about one edge: which targets its inputs lead to, and the records there."""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.digest import Digest
from solver import cachekey
from solver.edge import Input
from solver.messages import Found
from solver.vertex import CacheMap, CacheRecord, CacheStore, Dep, InputKeys


class Lookup:
    """One edge's view of the key graph. It keeps what each input led to, so that only news is asked for."""

    __slots__ = ("_deps", "_matches", "_ops", "_output", "_records", "_store")

    def __init__(self, store: CacheStore, cache_map: CacheMap, output: int, inputs: int) -> None:
        self._store = store
        self._ops: tuple[Digest, ...] = (cache_map.digest, *cache_map.aliases) if cache_map.stable else ()
        self._deps = cache_map.deps or (Dep(),) * inputs
        self._output = output
        self._matches: list[frozenset[str]] = [frozenset()] * inputs
        self._records: dict[str, CacheRecord] = {}

    def update(self, changed: Sequence[int], inputs: Sequence[Input]) -> Found:
        """Ask about the inputs in `changed`, and say what all inputs together lead to."""
        for index in changed:
            self._matches[index] = self._targets(index, inputs[index])
        keys = self._keys()
        found = [record for key in keys for record in self._store.records(key)]
        if len(keys) > 1:
            found.sort(key=lambda record: record.created, reverse=True)
        self._records = {record.id: record for record in found}
        return Found(
            matched=frozenset([index for index in changed if self._matches[index]]),
            keys=keys,
            records=tuple(self._records),
        )

    def record(self, id: str) -> CacheRecord:
        return self._records[id]

    def add_keys(self, inputs: Sequence[InputKeys], output: int) -> tuple[str, ...]:
        """The keys of an output over inputs with these keys, one for each digest of the op; links are stored.

        None at all when the op is not stable.
        """
        if not inputs:
            return tuple([cachekey.root_key(op, output) for op in self._ops])
        return tuple([self._store.add_key(op, output, inputs) for op in self._ops])

    def input_keys(self, index: int, keys: tuple[str, ...], content: str | None) -> InputKeys:
        """The keys of an input under the selector of its dep."""
        return InputKeys(selector=self._deps[index].selector, keys=keys if content is None else (*keys, content))

    def _targets(self, index: int, one: Input) -> frozenset[str]:
        keys = self.input_keys(index, one.keys, one.content)
        return frozenset().union(*[self._store.targets(op, self._output, index, keys) for op in self._ops])

    def _keys(self) -> tuple[str, ...]:
        if not self._matches:
            return tuple([cachekey.root_key(op, self._output) for op in self._ops])
        if not all(self._matches):
            return ()
        return tuple(sorted(frozenset.intersection(*self._matches)))
