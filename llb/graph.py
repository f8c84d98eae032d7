"""A definition, understood: operations decoded, checked and in order, ready to become vertices.

What passes `load` holds together: every edge leads to an operation that has that output, every index inside an
operation is in range, the result edge exists, and inputs come before their users. It knows nothing of executing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition, Location
from buildengine.values import dataclass
from llb import caps, codec, names
from llb.checks import check
from llb.definition import Definition
from llb.ops import Input, Op, OpMetadata
from llb.order import Cycle, postorder
from llb.outputs import output_count

_NO_METADATA = OpMetadata()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation of a graph. `digest` is over the bytes received."""

    digest: Digest
    op: Op
    name: str
    metadata: OpMetadata = _NO_METADATA
    locations: tuple[Location, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The operations that the result needs, by digest, inputs before users; `root` is the result."""

    nodes: Mapping[Digest, Node]
    root: Input

    @property
    def order(self) -> tuple[Digest, ...]:
        return tuple(self.nodes)


def load(definition: Definition, *, known_caps: frozenset[str] = caps.KNOWN) -> Graph:
    """The graph of a definition. Raises InvalidDefinition, which names the operation and where it comes from.

    An empty definition is scratch: ask `definition.is_scratch` first. Capabilities that an operation needs and
    that are not among `known_caps` are refused (BuildKit, WithValidateCaps).
    """
    if len(definition.ops) < 2:
        raise InvalidDefinition(
            f"definition has {len(definition.ops)} operations: at least one and the terminal one are needed"
        )
    digests = definition.digests()
    ops = {digest: _decode(definition, digest, data) for digest, data in zip(digests, definition.ops, strict=True)}
    terminal = ops.pop(digests[-1])
    if terminal.payload is not None or len(terminal.inputs) != 1:
        raise _invalid(definition, digests[-1], terminal, InvalidDefinition("the last operation must name one result"))
    for digest, op in ops.items():
        _check(definition, digest, op, known_caps)
    for digest, op in (*ops.items(), (digests[-1], terminal)):
        _check_edges(definition, digest, op, ops)
    root = terminal.inputs[0]
    try:
        order = postorder(root.digest, lambda digest: [edge.digest for edge in ops[digest].inputs])
    except Cycle as cycle:  # cannot be made with sha256: a digest would have to contain itself
        raise InvalidDefinition(f"operation {cycle.node} depends on itself") from cycle
    return Graph(nodes=MappingProxyType(_nodes(definition, ops, order)), root=root)


def _nodes(definition: Definition, ops: Mapping[Digest, Op], order: list[Digest]) -> dict[Digest, Node]:
    nodes: dict[Digest, Node] = {}
    for digest in order:
        op = ops[digest]
        metadata = definition.metadata.get(digest, _NO_METADATA)
        nodes[digest] = Node(
            digest=digest,
            op=op,
            name=names.name(op, metadata, [nodes[edge.digest].name for edge in op.inputs]),
            metadata=metadata,
            locations=definition.source.locations(digest),
        )
    return nodes


def _decode(definition: Definition, digest: Digest, data: bytes) -> Op:
    try:
        return codec.decode(data)
    except InvalidDefinition as error:
        raise _invalid(definition, digest, None, error) from error


def _check(definition: Definition, digest: Digest, op: Op, known_caps: frozenset[str]) -> None:
    metadata = definition.metadata.get(digest, _NO_METADATA)
    try:
        check(op)
        unknown = metadata.caps - known_caps
        if unknown:
            raise InvalidDefinition(
                f"capability {min(unknown)!r} is not supported", hint="it needs a newer engine than this one"
            )
    except InvalidDefinition as error:
        raise _invalid(definition, digest, op, error) from error


def _check_edges(definition: Definition, digest: Digest, op: Op, ops: Mapping[Digest, Op]) -> None:
    for edge in op.inputs:
        needed = ops.get(edge.digest)
        if needed is None:
            problem = f"input {edge.digest.algorithm}:{edge.digest.short} is not in the definition"
            raise _invalid(definition, digest, op, InvalidDefinition(problem))
        count = output_count(needed)
        if not 0 <= edge.index < count:
            label = names.name(needed, definition.metadata.get(edge.digest, _NO_METADATA))
            problem = f"input {label} ({edge.digest.short}) has {count} outputs: there is no output {edge.index}"
            raise _invalid(definition, digest, op, InvalidDefinition(problem))


def _invalid(definition: Definition, digest: Digest, op: Op | None, error: InvalidDefinition) -> InvalidDefinition:
    """The same error, with whose it is and where. `op` is None when it could not be read."""
    metadata = definition.metadata.get(digest, _NO_METADATA)
    name = metadata.description.get(names.CUSTOM_NAME, "operation") if op is None else names.name(op, metadata)
    return InvalidDefinition(
        f"{name or 'operation'} ({digest.short}): {error.message}",
        hint=error.hint,
        locations=definition.source.locations(digest),
        vertex=digest,
    )
