"""The bytes and attributes of single files, as digests and as records: what a content digest is made of.

A record holds what a build step can see of a file and what BuildKit's checksums hold (contenthash/tarsum.go): type,
mode, owner, link target, device numbers, extended attributes, bytes; no name, no times. All fields have a length,
so two different files never have one record.
"""

from __future__ import annotations

import os
import struct
from functools import cache

from blake3 import blake3

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SMALL = 1 << 20
_BUFFER = 8 << 20
_HEAD = struct.Struct(">IIIQQII")


def record(
    mode: int,
    *,
    uid: int = 0,
    gid: int = 0,
    rdev: int = 0,
    size: int = 0,
    link: bytes = b"",
    xattrs: bytes = b"",
    content: bytes = b"",
) -> bytes:
    """`size` and `content` (a digest) are a regular file's, `link` a symlink's, `rdev` a device's."""
    return _HEAD.pack(mode, uid, gid, rdev, size, len(link), len(xattrs)) + link + xattrs + content


def open_file(directory: int, name: str) -> int:
    """A descriptor of a file for reading; never blocks, never follows."""
    return os.open(name, _OPEN, dir_fd=directory)


def hash_open_file(fd: int, size: int) -> bytes:
    """blake3 of all bytes of an open file of about `size` bytes. Large files use every processor."""
    if size < _SMALL:
        data = os.read(fd, size + 1)
        if len(data) <= size:
            return blake3(data).digest()
        digest = blake3(data)
    else:
        digest = blake3(max_threads=blake3.AUTO)
    buffer = memoryview(bytearray(_BUFFER))
    while count := os.readv(fd, [buffer]):
        digest.update(buffer[:count])
    return digest.digest()


def xattrs_of(path: str | int, *, follow: bool = False) -> bytes:
    """The extended attributes that count, in one spelling: security.capability and those a user can see."""
    try:
        names = os.listxattr(path) if isinstance(path, int) else os.listxattr(path, follow_symlinks=follow)
    except OSError:
        return b""  # the file system has none
    if not names:
        return b""
    out = []
    for name in sorted(filter(_counts, names)):
        value = os.getxattr(path, name) if isinstance(path, int) else os.getxattr(path, name, follow_symlinks=follow)
        raw = os.fsencode(name)
        out.append(struct.pack(">II", len(raw), len(value)) + raw + value)
    return b"".join(out)


def link_target(directory: int, name: str) -> bytes:
    return os.fsencode(os.readlink(name, dir_fd=directory))


@cache
def _counts(name: str) -> bool:
    """BuildKit: security.capability, and no other of security. and system.; and what overlayfs keeps for itself."""
    return name == "security.capability" or not name.startswith(("security.", "system.", "trusted.overlay."))
