"""A definition with other sources in it: what is built on them is another operation then, with another digest. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition
from llb import codec
from llb.definition import Definition
from llb.ops import Op, SourceOp
from llb.order import Cycle, postorder


def sources(definition: Definition) -> dict[Digest, Op]:
    """The operations that are sources. Raises InvalidDefinition."""
    decoded = zip(definition.digests(), map(codec.decode, definition.ops), strict=True)
    return {digest: op for digest, op in decoded if isinstance(op.payload, SourceOp)}


def with_sources(definition: Definition, changed: Mapping[Digest, SourceOp]) -> Definition:
    """`changed` is by the digests of the operations that are to have another source. Raises InvalidDefinition.

    What is known of an operation is known of the one in its place.
    """
    if not changed:
        return definition
    data = dict(zip(definition.digests(), definition.ops, strict=True))
    new: dict[Digest, Digest] = {}
    ops: list[bytes] = []
    inputs = {digest: [edge.digest for edge in codec.decode(op).inputs] for digest, op in data.items()}
    for digest in _order(inputs, definition.digests()[-1]):
        is_new = digest in changed or any(new[needed] != needed for needed in inputs[digest])
        ops.append(codec.rewritten(data[digest], new, changed.get(digest)) if is_new else data[digest])
        new[digest] = Digest.sha256(ops[-1])
    metadata = {new[digest]: known for digest, known in definition.metadata.items() if digest in new}
    places = {new[digest]: known for digest, known in definition.source.places.items() if digest in new}
    return Definition(ops=tuple(ops), metadata=metadata, source=replace(definition.source, places=places))


def _order(inputs: Mapping[Digest, Sequence[Digest]], terminal: Digest) -> list[Digest]:
    """Inputs before users, the terminal operation last; what nothing needs is left out."""
    try:
        return postorder(terminal, lambda digest: inputs[digest])
    except KeyError as missing:
        raise InvalidDefinition(f"input {missing.args[0]} is not in the definition") from None
    except Cycle as cycle:
        raise InvalidDefinition(f"operation {cycle.node} depends on itself") from cycle
