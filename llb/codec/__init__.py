"""Between the values of `llb` and the bytes of BuildKit's `pb` messages: the only importer of `ops_pb2` here.

Encoding is deterministic and writes what BuildKit's own client writes for the same operation, so that both get
one digest: fields in the order of their numbers but the payload last, maps sorted by key, defaults left out,
`constraints` present on every operation but the terminal one. Decoding takes what anybody wrote and raises
InvalidDefinition for what cannot be an operation. Whether the operations fit together is the business of
`llb.graph`, not of this package.
"""

from llb.codec.definitions import decode_definition, encode_definition
from llb.codec.operations import decode, encode, rewritten

__all__ = ["decode", "decode_definition", "encode", "encode_definition", "rewritten"]
