"""What a build of one target can be given: arguments that matter to it, secrets and agents that its commands ask for.

An argument counts when a stage of the target declares it, a FROM line names it, or the default of one that counts
does. Facts: BuildKit frontend/dockerfile/dockerfile2llb/outline.go. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from buildengine.errors import Location
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.args import Argument, described
from frontends.dockerfile.convert.draft import Draft
from frontends.dockerfile.plan import Plan
from frontends.dockerfile.stages import Stage
from frontends.dockerfile.words import Lexer
from llb.mounts import Ssh

_Wanted = tuple[str, Location, bool]  # a name, where it is asked for first, and whether it must be there
_Drafts = Mapping[Stage, Draft]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Everything in the order of the file. `name` is "" for a stage without one."""

    name: str
    description: str
    arguments: tuple[tuple[str, Argument], ...]
    secrets: tuple[_Wanted, ...]
    agents: tuple[_Wanted, ...]


def outline(plan: Plan, drafts: _Drafts, given: Mapping[str, str], lexer: Lexer) -> Outline:
    """`drafts` are the stages that the target needs, converted; `given` are the --build-args."""
    declared = described(plan.predefined, plan.declared, given, lexer)
    arguments: dict[str, Argument] = {}
    secrets: dict[str, _Wanted] = {}
    agents: dict[str, _Wanted] = {}
    for stage in _order(plan.target):
        known = declared | _own(stage, drafts[stage], plan, given)
        for name in _with_needs(_named(stage, plan, lexer), known):
            if name in known:
                arguments.setdefault(name, known[name])
        for mount, where in drafts[stage].asked:
            found = agents if isinstance(mount, Ssh) else secrets
            name = mount.id or "default"
            found.setdefault(name, (name, where, not mount.optional))
    start = plan.target.instruction
    return Outline(
        name=plan.target.name,
        description=start.description if start else "",
        arguments=tuple(_sorted(arguments.items(), lambda each: each[1].location)),
        secrets=tuple(_sorted(secrets.values(), lambda each: each[1])),
        agents=tuple(_sorted(agents.values(), lambda each: each[1])),
    )


def _order(target: Stage) -> Iterator[Stage]:
    """The target first, and what it is made of behind: where two say something of one name, the nearer counts."""
    seen, pending = {target}, [target]
    while pending:
        stage = pending.pop()
        yield stage
        for other in (*stage.needs, *([stage.base] if stage.base else [])):
            if other not in seen:
                seen.add(other)
                pending.append(other)


def _named(stage: Stage, plan: Plan, lexer: Lexer) -> set[str]:
    """The arguments that a stage's FROM line names, and those that it declares itself."""
    names = {pair.key for instruction in _declarations(stage) for pair in instruction.pairs}
    start = stage.instruction
    for text in (start.image, start.platform) if start else ():
        names |= lexer.process(text, plan.global_args).matched
    return names


def _own(stage: Stage, draft: Draft, plan: Plan, given: Mapping[str, str]) -> dict[str, Argument]:
    """What a stage itself says of arguments: `ARG name` alone only lets in the global one."""
    return {
        pair.key: Argument(
            value=draft.args.get(pair.key) or "",
            description=ins.description(instruction.line, pair.key),
            location=instruction.location,
        )
        for instruction in _declarations(stage)
        for pair in instruction.pairs
        if pair.value is not None or pair.key in given or pair.key not in plan.global_args
    }


def _declarations(stage: Stage) -> Iterator[ins.Arg]:
    for step in stage.steps:
        if isinstance(step.instruction, ins.Arg):
            yield step.instruction


def _with_needs(names: Iterable[str], known: Mapping[str, Argument]) -> set[str]:
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += known[name].needs if name in known else ()
    return found


def _sorted(values: Iterable[T], where: Callable[[T], Location]) -> list[T]:
    def line(value: T) -> int:
        return min((each.start_line for each in where(value).ranges), default=0)

    return sorted(values, key=line)
