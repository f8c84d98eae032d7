"""A build as it is written down, from the steps that its job has solved and the operations that they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from buildengine.digest import Digest
from llb.graph import Node
from solver.steps import SolvedStep
from solver.vertex import Edge
from worker.explain import facts
from worker.explain.files import list_name
from worker.explain.secrecy import kept
from worker.explain.step import Build, Step, StepInput, Today
from worker.results import Snapshot, Stack

_ARGUMENT = "build-arg:"


def describe(
    solved: Sequence[SolvedStep],
    nodes: Mapping[Digest, Node],
    results: Iterable[tuple[Edge, object]],
    options: Mapping[str, str],
    label: str,
) -> Build:
    """`options` are those of the frontend: the build arguments among them are written down as well."""
    stacks = {
        (edge.vertex.digest, edge.index): result.stack for edge, result in results if isinstance(result, Snapshot)
    }
    positions = {each.vertex.digest: position for position, each in enumerate(solved)}
    given = {name.removeprefix(_ARGUMENT): value for name, value in options.items() if name.startswith(_ARGUMENT)}
    return Build(
        label=label,
        steps=tuple([_step(each, nodes[each.vertex.digest], positions, stacks) for each in solved]),
        arguments={name: kept(name, value) for name, value in given.items()},
    )


def today(solved: Sequence[SolvedStep], options: Mapping[str, str]) -> list[Today]:
    """What is known of each step only as long as the build goes on."""
    return [
        Today(
            asked=_asked(options) if each.vertex.options.ignore_cache else "",
            made=each.record.created if each.record is not None else None,
            is_imported=each.is_imported,
            was_lost=each.was_lost,
        )
        for each in solved
    ]


def _asked(options: Mapping[str, str]) -> str:
    stages = options.get("no-cache")
    if stages is None:
        return "the definition says so"
    return f"--no-cache-filter {stages}" if stages else "--no-cache"


def _step(
    solved: SolvedStep,
    node: Node,
    positions: Mapping[Digest, int],
    stacks: Mapping[tuple[Digest, int], Stack],
) -> Step:
    known = solved.cache_map
    return Step(
        vertex=solved.vertex.digest,
        name=solved.vertex.name,
        kind=facts.kind(node.op),
        facts=facts.facts(node.op),
        fate=solved.fate,
        op=str(known.digest) if known is not None and known.stable else "",
        pin=(known.pin if known is not None else "") or facts.pinned(node.op),
        keys=solved.keys,
        inputs=tuple(
            StepInput(
                step=positions.get(one.vertex, -1),
                keys=one.keys,
                content=one.content,
                files=list_name(node.op, index, one.content),
                tree=stacks.get((one.vertex, one.output), ()) if one.content is not None else (),
            )
            for index, one in enumerate(solved.inputs)
        ),
    )
