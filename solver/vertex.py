"""What the solver knows of the world: vertices, operations, results and the cache, all as Protocols.

The solver imports neither `worker` nor `cache`; whoever wires an engine hands it an object for each of these.

    Vertex      identity (digest) + inputs + the op that computes it
    Op          cache_map() says what its key is made of; exec() computes its outputs
    Result      a counted reference to something computed (a snapshot, a lazy remote, a local tree)
    CacheStore  key graph and records: links (inputs -> key), records (key -> stored result)
    CacheSource another key graph with records, which came from elsewhere: it is asked beside the store

Key graph. A key id is an opaque string. A link says: with op `op` and output `output`, input number `index`
under selector `selector` holding the key `input`, leads to the key `target`. A vertex with n inputs reaches
a target when every one of its inputs has a link to it. A content key takes part as an input key like any
other (`content:...`), but is always linked under the empty selector: it already says what was selected, so
the same bytes under another path are found too. A vertex without inputs has the root key
`cachekey.root_key(op, output)`; the solver never asks the store for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from buildengine.digest import Digest
from buildengine.errors import Location
from buildengine.events import ProgressGroup
from buildengine.values import dataclass
from solver.reporter import Reporter


class Result(Protocol):
    """A counted reference. Whoever holds one releases it once; a clone is a reference of its own."""

    def clone(self) -> Result: ...

    def release(self) -> None: ...


ContentKey = Callable[[Result], Awaitable[Digest]]
"""Computes the content digest of an input under the dep's selector(s); may read the result's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dep:
    """What one input contributes to the key: its keys under `selector`, and its content where that is enough."""

    selector: str = ""
    content_key: ContentKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMap:
    """What an op's cache key is made of: a digest of itself and a `Dep` for each input.

    `aliases` are further digests under which the same result may be found (an image source: first manifest
    digest and platform, then the chain id of the config). `deps` may be empty when all are plain.

    What is not `stable` means something else each time, as a local directory does. It is neither looked up
    nor stored, whatever its digest; whoever uses it is found by the content that it reads, or not at all.

    `pin` says what a source is at this moment (an image's digest, a commit), for whoever reports on the build.
    """

    digest: Digest
    deps: tuple[Dep, ...] = ()
    aliases: tuple[Digest, ...] = ()
    stable: bool = True
    pin: str = ""


class Op(Protocol):
    """One operation, bound to the job that wants it. Both calls run at most once at a time per vertex."""

    @property
    def is_bound(self) -> bool:
        """Whether what it does now must end with its job, since it uses the client or what was opened for the job.

        What is not goes on, for another job that waits for it.
        """
        ...

    async def cache_map(self) -> CacheMap: ...

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        """One result for each output, given to the caller; None, here and in `inputs`, is the empty tree (scratch).

        `inputs` are lent: clone what is to outlive the call.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexOptions:
    """What must not change identity. `locations` is where in the user's file the vertex comes from."""

    ignore_cache: bool = False
    export_cache: bool | None = None
    description: Mapping[str, str] = field(default_factory=dict)
    progress_group: ProgressGroup | None = None
    locations: tuple[Location, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """A node ready to be solved. `digest` identifies; equal digests are one vertex, in every job.

    `reporter` is where `op` reports its progress. An op that only waits for other ops (a nested build) must
    not `occupy_slot`: it would keep the slot from those that it waits for.
    """

    digest: Digest
    name: str
    op: Op
    inputs: tuple[Edge, ...] = ()
    options: VertexOptions = VertexOptions()
    reporter: Reporter | None = None
    occupy_slot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Output `index` of `vertex`."""

    vertex: Vertex
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputKeys:
    """All keys known for one input of a vertex, under the selector of its dep."""

    selector: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """A stored result of `key`. `payload` is the store's own: the solver never looks inside."""

    key: str
    id: str
    created: float
    payload: Any = None


class CacheSource(Protocol):
    """A cache that was made elsewhere: read-only, and believed only by the jobs that named it (`Job.sources`).

    It knows the ids where paths begin (`solver.cachekey`) by their names, and gives every other key an id of its own,
    which no other source takes for one of its own: jobs that share a vertex may have different sources.
    """

    async def ready(self) -> None:
        """Until it can be asked. One that cannot be had is empty: that is nobody's failure."""
        ...

    def targets(self, op: Digest, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        """As `CacheStore.targets`."""
        ...

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Records of this key, newest first. Their ids are like those of no store and no other source."""
        ...

    async def load(self, record: CacheRecord) -> Result | None:
        """The result, as far as it need not be fetched: whoever reads it fetches it then."""
        ...

    def contents(self, key: str, index: int) -> frozenset[Digest]:
        """The names of what input `index` may hold for `key` to be reached. Only where an input is taken by its
        content: other names are not told apart from these."""
        ...


class CacheStore(Protocol):
    """The key graph and its records. Reads answer at once (memory or SQLite); only load and save may block."""

    def targets(self, op: Digest, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        """Where the links of one input lead: what `query` intersects over all inputs.

        The solver asks input by input, since it must know which inputs have not matched: those alone are worth
        computing a content key for.
        """
        ...

    def query(self, op: Digest, output: int, inputs: Sequence[InputKeys]) -> tuple[str, ...]:
        """Known keys that (op, output) reaches from these inputs: for each target, every input has a link."""
        ...

    def add_key(self, op: Digest, output: int, inputs: Sequence[InputKeys]) -> str:
        """The key of (op, output) over these inputs: a known target or a new one; all links are stored.

        Where an input holds a content key, that key alone decides which targets are known: an op that ran anew
        (`ignore_cache`) may leave other content under the same definition, and what is computed from it
        must not be stored under the key of the old content. The definition's keys are linked all the same.
        """
        ...

    def records(self, key: str) -> tuple[CacheRecord, ...]:
        """Records of this key, newest first."""
        ...

    async def load(self, record: CacheRecord) -> Result | None:
        """The stored result, held for this process; None when it is gone (pruned, damaged)."""
        ...

    async def save(self, key: str, result: Result, *, created: float | None = None) -> None:
        """Remember `result` under `key`. A result that cannot be stored (a local tree) is silently not.

        `created`: it was made then, and elsewhere.
        """
        ...

    def contents(self, key: str, index: int) -> frozenset[str]:
        """The content keys of input `index` that lead to `key`."""
        ...

    def exclusive(self, key: str) -> Any:
        """An async context manager: this process alone computes `key` (flock between processes)."""
        ...
