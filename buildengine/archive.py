"""Whether bytes are a tar archive, compressed or not, told by how they begin. Pure."""

from __future__ import annotations

import re

_MAGIC = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # bzip2, gzip, xz, zstd


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with `head`, at least its first 512 bytes, is an archive."""
    return head.startswith(_MAGIC) or _is_tar_header(head[:512])


def _is_tar_header(block: bytes) -> bool:
    """tar(5): the sum of the block's bytes, those of the sum itself taken as spaces, is in it in octal."""
    text = block[148:156].strip(b" \0")
    if len(block) < 512 or not re.fullmatch(b"[0-7]+", text):
        return False
    return int(text, 8) == sum(block[:148]) + 8 * 32 + sum(block[156:])
