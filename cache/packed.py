"""Plain values (dicts, tuples, bytes, numbers) as bytes and back, fast: marshal, under a checksum.

marshal reads 20,000 entries in some 10 ms, pickle-free, but trusts its input and changes between Pythons. So the
checksum is looked at first, and bytes of another Python are no value: what is packed here can always be
computed again.
"""

from __future__ import annotations

import marshal
import sys
from typing import Any

from blake3 import blake3

_TAG = b"pybuild.packed %d.%d.%d\n" % (*sys.version_info[:2], marshal.version)


def pack(value: Any) -> bytes:
    body = marshal.dumps(value)
    return _TAG + blake3(body).digest() + body


def unpack(data: bytes) -> Any:
    """The value, or None for bytes that are damaged or of another Python."""
    start = len(_TAG) + 32
    if not data.startswith(_TAG) or blake3(memoryview(data)[start:]).digest() != data[len(_TAG) : start]:
        return None
    return marshal.loads(memoryview(data)[start:])
