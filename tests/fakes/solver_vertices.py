"""Vertices made of constants and sums, results that are counted, and a store that counts: no container anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from buildengine.digest import Digest
from buildengine.errors import Location, StoreError
from solver.job import Job
from solver.reporter import Reporter
from solver.vertex import CacheMap, CacheRecord, Dep, Edge, Result, Vertex, VertexOptions
from tests.fakes.memory_store import MemoryCacheStore

Hook = Callable[[], Awaitable[None]]
_names = itertools.count()


class Ledger:
    """Every reference that exists."""

    def __init__(self) -> None:
        self.live = 0

    def new(self, value: object) -> Counted:
        return Counted(value, self)


class Counted:
    """A result that may be released once, and is of no use afterwards."""

    def __init__(self, value: object, ledger: Ledger) -> None:
        self._value = value
        self._ledger = ledger
        self._released = False
        ledger.live += 1

    @property
    def value(self) -> object:
        assert not self._released, "used after release"
        return self._value

    def clone(self) -> Counted:
        return Counted(self.value, self._ledger)

    def release(self) -> None:
        assert not self._released, "released twice"
        self._released = True
        self._ledger.live -= 1


@dataclass
class Calls:
    """What was called, by the names of the vertices, in order."""

    cache_maps: list[str] = field(default_factory=list)
    execs: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.cache_maps.clear()
        self.execs.clear()
        self.content.clear()


class FakeOp:
    def __init__(self, world: World, name: str, cache_map: CacheMap, compute: Callable[..., Sequence[object]]) -> None:
        self._world = world
        self._name = name
        self._cache_map = cache_map
        self._compute = compute
        self.before_cache_map: Hook | None = None
        self.before_exec: Hook | None = None
        self.is_bound = False
        self.running = 0

    async def cache_map(self) -> CacheMap:
        self._world.calls.cache_maps.append(self._name)
        if self.before_cache_map is not None:
            await self.before_cache_map()
        return self._cache_map

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        self._world.calls.execs.append(self._name)
        self.running += 1
        assert self.running == 1, "two executions at once"
        try:
            if self.before_exec is not None:
                await self.before_exec()
            values = [None if one is None else unwrap(one) for one in inputs]
            made = self._compute(*values)
            return [None if value is None else self._world.ledger.new(value) for value in made]
        finally:
            self.running -= 1


class World:
    """Makes vertices that share a ledger and a list of calls."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.calls = Calls()

    def vertex(
        self,
        name: str = "",
        *,
        seed: str = "",
        value: object = None,
        compute: Callable[..., Sequence[object]] | None = None,
        inputs: Sequence[Edge] = (),
        content: Sequence[int] = (),
        selectors: Mapping[int, str] | None = None,
        aliases: Sequence[str] = (),
        ignore_cache: bool = False,
        before_cache_map: Hook | None = None,
        before_exec: Hook | None = None,
        locations: tuple[Location, ...] = (),
        reporter: Reporter | None = None,
        occupy_slot: bool = True,
        stable: bool = True,
        is_bound: bool = False,
    ) -> Edge:
        """A vertex whose digest is its name and whose key is its seed; `content`: inputs it reads the content of."""
        name = name or f"unnamed-{next(_names)}"
        deps = [
            Dep(
                selector=(selectors or {}).get(index, ""),
                content_key=self._content_key(name) if index in content else None,
            )
            for index in range(len(inputs))
        ]
        cache_map = CacheMap(
            digest=Digest.sha256(f"seed:{seed or name}".encode()),
            deps=tuple(deps),
            aliases=tuple([Digest.sha256(f"seed:{alias}".encode()) for alias in aliases]),
            stable=stable,
        )
        op = FakeOp(self, name, cache_map, compute or (lambda *_: [value]))
        op.before_cache_map, op.before_exec, op.is_bound = before_cache_map, before_exec, is_bound
        vertex = Vertex(
            digest=Digest.sha256(name.encode()),
            name=name,
            op=op,
            inputs=tuple(inputs),
            options=VertexOptions(ignore_cache=ignore_cache, locations=locations),
            reporter=reporter,
            occupy_slot=occupy_slot,
        )
        return Edge(vertex=vertex)

    def const(self, number: int, name: str = "") -> Edge:
        return self.vertex(name, seed=f"const-{number}", value=number)

    def sum(self, number: int, *inputs: Edge, name: str = "", content: Sequence[int] = ()) -> Edge:
        """The sum of the inputs plus a number."""
        return self.vertex(
            name,
            seed=f"sum-{number}-{len(inputs)}-{sorted(content)}",
            compute=lambda *values: [number + sum(values)],
            inputs=inputs,
            content=content,
        )

    def add(self, number: int, *inputs: Edge, name: str = "") -> Edge:
        """As many outputs as inputs: each input plus a number."""
        return self.vertex(
            name,
            seed=f"add-{number}-{len(inputs)}",
            compute=lambda *values: [number + value for value in values],
            inputs=inputs,
        )

    def _content_key(self, name: str) -> Callable[[Result], Awaitable[Digest]]:
        async def compute(result: Result) -> Digest:
            self.calls.content.append(name)
            await trio.lowlevel.checkpoint()
            return Digest.sha256(repr(unwrap(result)).encode())

        return compute


class CountingStore(MemoryCacheStore):
    """Counts loads; can be told to lose or break what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.lose = False
        self.broken = False

    async def load(self, record: CacheRecord) -> Result | None:
        self.loads += 1
        if self.broken:
            raise StoreError("blob is damaged")
        if self.lose:
            return None
        return await super().load(record)


def unwrap(result: Result | None) -> object:
    assert isinstance(result, Counted)
    return result.value


async def value(job: Job, edge: Edge) -> object:
    """Of the only result."""
    (result,) = await job.solve([edge])
    return unwrap(result)
