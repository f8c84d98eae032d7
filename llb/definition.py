"""A graph of operations as it travels: bytes, and what is known beside them.

The digest of an operation is the sha256 of the bytes *received*. Another client may order a map otherwise than
our encoder would, and it already uses its digests for progress, warnings and source maps; so operations are
never re-serialised. To look inside, `llb.graph.load` the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType

from buildengine.digest import Digest
from buildengine.values import dataclass
from llb import codec
from llb.ops import OpMetadata
from llb.sourcemap import SourceMap

_NOTHING: Mapping[Digest, OpMetadata] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """Serialised operations, inputs before users by custom; the last is the terminal one, whose input is the result.

    Without any operation it is scratch, the empty tree: nothing to solve.
    """

    ops: tuple[bytes, ...] = ()
    metadata: Mapping[Digest, OpMetadata] = field(default_factory=lambda: _NOTHING)
    source: SourceMap = field(default_factory=SourceMap)

    @classmethod
    def from_bytes(cls, data: bytes) -> Definition:
        """What a `pb.Definition` message says. Raises InvalidDefinition; the operations are not looked into."""
        ops, metadata, source = codec.decode_definition(data)
        return cls(ops=ops, metadata=metadata, source=source)

    def to_bytes(self) -> bytes:
        """The `pb.Definition` message; the same definition always gives the same bytes."""
        return codec.encode_definition(self.ops, self.metadata, self.source)

    @property
    def is_scratch(self) -> bool:
        return not self.ops

    def digests(self) -> tuple[Digest, ...]:
        """The digest of each operation, in order. Computed at each call (1 us an operation)."""
        return tuple([Digest.sha256(op) for op in self.ops])
