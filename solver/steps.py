"""What became of each step of a job, and by which keys: for whoever explains a build when it is over.

Nothing is kept for this: all of it is read off the edges, while the job still has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from buildengine.digest import Digest
from buildengine.values import dataclass
from solver.active import ActiveEdge, ActiveVertex
from solver.edge import is_fresh
from solver.failures import Failure
from solver.messages import Level
from solver.vertex import CacheMap, CacheRecord, Vertex


class Fate(Enum):
    """`PASSED_OVER`: nobody needed it, or the build ended before its turn."""

    RAN = "ran"
    CACHED = "cached"
    FAILED = "failed"
    PASSED_OVER = "passed over"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedInput:
    """An input as its user saw it: under these keys, and with this content, as far as that was asked for."""

    vertex: Digest
    output: int = 0
    keys: tuple[str, ...] = ()
    content: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedStep:
    """One vertex. `cache_map` is None as long as nobody asked for its key.

    `record` stands for it where it was CACHED; `was_lost`: a record was found whose result was gone. `is_fresh`: it
    ignores the cache, or uses what does.
    """

    vertex: Vertex
    fate: Fate
    cache_map: CacheMap | None = None
    keys: tuple[str, ...] = ()
    inputs: tuple[UsedInput, ...] = ()
    record: CacheRecord | None = None
    is_imported: bool = False
    is_fresh: bool = False
    was_lost: bool = False


def solved_steps(vertices: Iterable[ActiveVertex]) -> Iterator[SolvedStep]:
    """One for each vertex, inputs before users if they come so."""
    for active in vertices:
        edges = active.edges
        if edges:
            yield _step(active, max(edges, key=lambda edge: (edge.state.level, -edge.index)))


def _step(active: ActiveVertex, edge: ActiveEdge) -> SolvedStep:
    fate = _fate(edge)
    outcome = active.cache_map.outcome
    found = edge.best_record() if fate is Fate.CACHED else None
    seen = zip(active.vertex.inputs, active.inputs, edge.state.inputs, strict=True)
    return SolvedStep(
        vertex=active.vertex,
        fate=fate,
        cache_map=None if outcome is None else outcome.value,
        keys=tuple(dict.fromkeys((*edge.keys, *edge.state.keys))),
        inputs=tuple(
            UsedInput(
                vertex=source.vertex.digest,
                output=source.index,
                keys=tuple(dict.fromkeys((*one.keys, *producer.keys))),
                content=one.content,
            )
            for source, producer, one in seen
        ),
        record=None if found is None else found.record,
        is_imported=found is not None and found.is_imported,
        is_fresh=is_fresh(edge.state),
        was_lost=bool(edge.state.missing),
    )


def _fate(edge: ActiveEdge) -> Fate:
    digest = edge.vertex.vertex.digest
    if any(isinstance(cause, Failure) and cause.vertex == digest for cause in edge.state.causes):
        return Fate.FAILED
    execution = edge.execution
    if execution is not None and execution.once.outcome is not None and execution.once.outcome.value is not None:
        return Fate.RAN
    is_there = edge.state.level is Level.RESULT or (edge.vertex.progress.settled and bool(edge.state.records))
    return Fate.CACHED if is_there and not edge.state.causes else Fate.PASSED_OVER
