"""The operations of a definition, easy to look at: what a test says of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

from buildengine.digest import Digest
from buildengine.errors import Location
from buildengine.platform import Platform
from llb import ops
from llb.definition import Definition
from llb.graph import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation. `number` counts from 1, inputs before users; `inputs` are the steps that it needs."""

    number: int
    name: str
    digest: Digest
    op: ops.Op
    ignore_cache: bool = False
    inputs: tuple[Step, ...] = ()
    locations: tuple[Location, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.number}. {self.name}"

    @property
    def platform(self) -> Platform | None:
        return self.op.platform

    @property
    def lines(self) -> tuple[int, ...]:
        """The lines of the user's file that it comes from."""
        return tuple(sorted({each.start_line for place in self.locations for each in place.ranges}))

    def needs(self, other: Step) -> bool:
        """Whether it cannot begin before `other` is done."""
        return any(each.number == other.number or each.needs(other) for each in self.inputs)

    # --- what it is; each fails for a step of another kind

    @property
    def source(self) -> ops.SourceOp:
        assert isinstance(self.op.payload, ops.SourceOp), f"{self} is no source"
        return self.op.payload

    @property
    def exec(self) -> ops.ExecOp:
        assert isinstance(self.op.payload, ops.ExecOp), f"{self} is no command"
        return self.op.payload

    @property
    def argv(self) -> tuple[str, ...]:
        return self.exec.meta.args

    @property
    def env(self) -> dict[str, str]:
        pairs = (variable.partition("=") for variable in self.exec.meta.env)
        return {name: value for name, _, value in pairs}

    def mount(self, target: str) -> ops.Mount:
        """What is mounted there."""
        found = [mount for mount in self.exec.mounts if mount.dest == target]
        assert found, f"{self} mounts {', '.join(mount.dest for mount in self.exec.mounts)}, and nothing at {target}"
        return found[0]

    @property
    def file(self) -> ops.FileOp:
        assert isinstance(self.op.payload, ops.FileOp), f"{self} is no file operation"
        return self.op.payload

    @property
    def actions(self) -> list[ops.Action]:
        """What a step on files does, one after the other."""
        return [step.action for step in self.file.actions]

    @property
    def copies(self) -> list[ops.CopyAction]:
        return [action for action in self.actions if isinstance(action, ops.CopyAction)]


def steps(definition: Definition | None) -> tuple[Step, ...]:
    """The steps of a definition, inputs before users. None is the empty tree."""
    if definition is None or definition.is_scratch:
        return ()
    made: dict[str, Step] = {}
    for number, (digest, node) in enumerate(load(definition).nodes.items(), 1):
        made[digest] = Step(
            number=number,
            name=node.name,
            digest=digest,
            op=node.op,
            ignore_cache=node.metadata.ignore_cache,
            inputs=tuple(made[edge.digest] for edge in node.op.inputs),
            locations=node.locations,
        )
    return tuple(made.values())
