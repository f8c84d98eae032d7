"""Content digests: `sha256:<hex>` where an outside party sees them, `blake3:<hex>` for our own keys.

A `Digest` is a string, so it sorts, hashes and serialises as one; `parse` is the only way in for bytes that
somebody else wrote.
"""

from __future__ import annotations

import hashlib
import re

from buildengine.errors import UserError

# OCI image-spec, descriptor.md#digests: algorithm ":" encoded. We accept the algorithms we can compute.
_PATTERN = re.compile(r"(sha256|sha512|blake3):([0-9a-f]+)")
_HEX_LENGTH = {"sha256": 64, "sha512": 128, "blake3": 64}


class Digest(str):
    """`algorithm:hex`. Construct through `parse`, `sha256` or `of_hex`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `text` spells. Raises UserError when it spells none."""
        match = _PATTERN.fullmatch(text)
        if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
            raise UserError(
                f"invalid digest {text[:100]!r}",
                hint="a digest looks like sha256: followed by 64 lower-case hex digits",
            )
        return cls(text)

    @classmethod
    def sha256(cls, data: bytes | memoryview) -> Digest:
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def of_hex(cls, hexadecimal: str, algorithm: str = "sha256") -> Digest:
        return cls(f"{algorithm}:{hexadecimal}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hex digits, as people quote them."""
        return self.hex[:12]
