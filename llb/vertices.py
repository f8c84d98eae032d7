"""What a `State` is made of before it has bytes: vertices that know their inputs as objects, not as digests.

A vertex becomes an `Op` when its inputs have digests, `llb.marshal` sees to the order. Vertices are compared by
identity; two that say the same become one operation when they are encoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field, replace

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb import codec
from llb.definition import Definition
from llb.ops import (
    EMPTY,
    NO_INPUT,
    NO_OUTPUT,
    Action,
    DiffOp,
    ExecOp,
    FileAction,
    FileOp,
    Input,
    MergeOp,
    Mount,
    NamedUser,
    Op,
    OpMetadata,
    Owner,
    Remove,
    SourceOp,
)
from llb.sourcemap import Place


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Output:
    """One result of a vertex. The empty tree is None, wherever an Output may be."""

    vertex: Vertex
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is said of a vertex beside what it does. `require` are filters of workers (they are part of identity)."""

    metadata: OpMetadata = field(default_factory=OpMetadata)
    places: tuple[Place, ...] = ()
    require: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the whole definition is for; a vertex that has a platform of its own keeps it."""

    platform: Platform
    unique: str = ""
    require: tuple[str, ...] = ()


class Inputs:
    """The inputs of one op as they are numbered; one edge is listed once unless it must stand for itself."""

    def __init__(self, digests: Mapping[Vertex, Digest]) -> None:
        self.edges: list[Input] = []
        self._first: dict[Input, int] = {}
        self._digests = digests

    def edge(self, output: Output) -> Input:
        vertex = output.vertex
        if isinstance(vertex, DefinitionVertex):
            return vertex.root
        return Input(digest=self._digests[vertex], index=output.index)

    def add(self, output: Output | None) -> int:
        """The index of this input; NO_INPUT for the empty tree."""
        if output is None:
            return NO_INPUT
        known = self._first.get(self.edge(output))
        return self.append(output) if known is None else known

    def append(self, output: Output) -> int:
        edge = self.edge(output)
        self.edges.append(edge)
        self._first.setdefault(edge, len(self.edges) - 1)
        return len(self.edges) - 1


class Vertex(ABC):
    """Something that has outputs, immutable. `sources` are the outputs that it is made of."""

    __slots__ = ()

    about: About

    @property
    @abstractmethod
    def sources(self) -> tuple[Output, ...]: ...


class OperationVertex(Vertex):
    """One operation still to be encoded. `op` asks for all of its `sources`."""

    __slots__ = ()

    @abstractmethod
    def op(self, inputs: Inputs, target: Target) -> Op:
        """The operation, its inputs taken from `inputs`."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SourceVertex(OperationVertex):
    identifier: str
    attrs: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    platform: Platform | None = None
    about: About = About()

    @property
    def sources(self) -> tuple[Output, ...]:
        return ()

    def op(self, inputs: Inputs, target: Target) -> Op:
        attrs = self.attrs
        if self.identifier.startswith("local://") and target.unique and "local.session" not in attrs:
            attrs = {**attrs, "local.unique": target.unique}
        varies = self.identifier.startswith(("docker-image://", "oci-layout://"))
        return Op(
            payload=SourceOp(identifier=self.identifier, attrs=attrs),
            platform=(self.platform or target.platform) if varies else None,
            constraints=target.require + self.about.require,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExecVertex(OperationVertex):
    """`mounts` pairs each mount with the tree under it; their `input` is filled in when that has a digest."""

    exec: ExecOp  # without mounts
    mounts: tuple[tuple[Mount, Output | None], ...]
    platform: Platform | None = None
    about: About = About()

    @property
    def sources(self) -> tuple[Output, ...]:
        return tuple([output for _, output in self.mounts if output is not None])

    def op(self, inputs: Inputs, target: Target) -> Op:
        mounts = tuple([m if output is None else replace(m, input=inputs.add(output)) for m, output in self.mounts])
        return Op(
            inputs=tuple(inputs.edges),
            payload=replace(self.exec, mounts=mounts),
            platform=self.platform or target.platform,
            constraints=target.require + self.about.require,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Step:
    """One action of a file operation, paths resolved; `source` is what a copy copies from."""

    action: Action
    source: Output | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FileVertex(OperationVertex):
    """Actions on one tree, each on the result of the one before; the last is the result."""

    base: Output | None
    steps: tuple[Step, ...]
    about: About = About()

    @property
    def sources(self) -> tuple[Output, ...]:
        """The last step's source comes first: that is how BuildKit's client orders a definition."""
        return tuple([output for output in (self.base, *[s.source for s in self.steps[::-1]]) if output is not None])

    def op(self, inputs: Inputs, target: Target) -> Op:
        base = inputs.add(self.base)
        secondary = [inputs.add(step.source) for step in self.steps]
        count, last = len(inputs.edges), len(self.steps) - 1
        actions = [
            FileAction(
                action=_with_names_from(step.action, base),
                input=base if position == 0 else count + position - 1,
                secondary_input=source,
                output=0 if position == last else NO_OUTPUT,
            )
            for position, (step, source) in enumerate(zip(self.steps, secondary, strict=True))
        ]
        return Op(
            inputs=tuple(inputs.edges),
            payload=FileOp(actions=tuple(actions)),
            constraints=target.require + self.about.require,
        )


def _with_names_from(action: Action, base: int) -> Action:
    """User and group names are looked up in the tree that the whole operation starts from."""
    if isinstance(action, Remove) or action.owner is None:
        return action
    user, group = (
        NamedUser(name=who.name, input=base) if isinstance(who, NamedUser) else who
        for who in (action.owner.user, action.owner.group)
    )
    return replace(action, owner=Owner(user=user, group=group))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MergeVertex(OperationVertex):
    layers: tuple[Output, ...]
    about: About = About()

    @property
    def sources(self) -> tuple[Output, ...]:
        return self.layers

    def op(self, inputs: Inputs, target: Target) -> Op:
        indexes = tuple([inputs.append(layer) for layer in self.layers])
        return Op(
            inputs=tuple(inputs.edges),
            payload=MergeOp(inputs=indexes),
            constraints=target.require + self.about.require,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DiffVertex(OperationVertex):
    lower: Output | None
    upper: Output | None
    about: About = About()

    @property
    def sources(self) -> tuple[Output, ...]:
        return tuple([output for output in (self.lower, self.upper) if output is not None])

    def op(self, inputs: Inputs, target: Target) -> Op:
        lower, upper = [NO_INPUT if side is None else inputs.append(side) for side in (self.lower, self.upper)]
        return Op(
            inputs=tuple(inputs.edges),
            payload=DiffOp(lower=lower, upper=upper),
            constraints=target.require + self.about.require,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DefinitionVertex(Vertex):
    """A result that somebody else has already marshalled: its bytes are taken over as they are."""

    definition: Definition
    root: Input
    platform: Platform | None = None
    about: About = About()

    @classmethod
    def of(cls, definition: Definition) -> DefinitionVertex:
        """The result of a definition that is not scratch. Raises InvalidDefinition."""
        edges = codec.decode(definition.ops[-1]).inputs
        by_digest = dict(zip(definition.digests(), definition.ops, strict=True))
        if len(edges) != 1 or edges[0].digest not in by_digest:
            raise InvalidDefinition("definition has no result")
        platform = codec.decode(by_digest[edges[0].digest]).platform
        return cls(definition=definition, root=edges[0], platform=platform)

    @property
    def sources(self) -> tuple[Output, ...]:
        return ()
