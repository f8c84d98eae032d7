"""The header codec of tar: `TarHeader` to bytes and back, one value for one entry.

What is written is what Go's archive/tar writes in its PAX format, byte for byte, because that is what BuildKit
and containerd make layers with: plain ustar when everything fits, else a PAX extended header in front of it
(POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"). Times are whole seconds, owner names
are left out. What is read is in tarreader.py.

This module must not know files, whiteouts or streams: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple
from zlib import adler32

from buildengine.errors import SourceError
from buildengine.values import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
XATTR_RECORD = b"SCHILY.xattr."
NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})
NO_RECORDS: Mapping[bytes, bytes] = MappingProxyType({})

_SECOND = 1_000_000_000
_ZERO_BLOCK = bytes(BLOCK)
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"
# name, mode uid gid size mtime, checksum, type, linkname, magic + version, (names), major minor, prefix
_WRITE = struct.Struct("100s48s8sc100s8s64x16s155s12x")
_READ = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12s")
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777


class Kind(Enum):
    """What an entry is; the value is its type byte."""

    FILE = b"0"
    LINK = b"1"
    SYMLINK = b"2"
    CHAR = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


@dataclass(frozen=True, slots=True, kw_only=True)
class TarHeader:
    """One entry. Names are bytes as the kernel has them; `mtime` counts nanoseconds.

    `size` is the length of the file, `holes` how many of its bytes a sparse archive does not hold (reading only).
    `records` are further PAX records (writing only).
    """

    name: bytes
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)
    holes: int = 0
    records: Mapping[bytes, bytes] = field(default_factory=lambda: NO_RECORDS)


class RawHeader(NamedTuple):
    """A header block as it stands, before extended headers change it."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    linkname: bytes
    major: bytes
    minor: bytes
    gnu: bool


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return (size + BLOCK - 1) & -BLOCK


def checksum(block: bytes) -> int:
    """The sum of the bytes of a block whose checksum field holds spaces."""
    # The low half of Adler-32 is 1 + the sum modulo 65521, which an ASCII block cannot reach (512 * 127 + 1);
    # this is ten times as fast as sum().
    return (adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)


# --- writing ----------------------------------------------------------------------------------------------


def encode(header: TarHeader) -> bytes:
    """The header as one block, or three and more where it needs an extended header."""
    seconds = header.mtime // _SECOND
    name, prefix = header.name, b""
    if len(name) > 100:
        prefix, name = _split(name)
    if (
        name.isascii()
        and len(name) <= 100
        and len(header.linkname) <= 100
        and header.linkname.isascii()
        and header.uid <= _MAX_OCTAL_7
        and header.gid <= _MAX_OCTAL_7
        and header.size <= _MAX_OCTAL_11
        and 0 <= seconds <= _MAX_OCTAL_11
        and not header.xattrs
        and not header.records
    ):
        return _block(header, name, header.linkname, prefix)
    data = b"".join(_record(key, value) for key, value in sorted(_records(header, seconds).items()))
    main = _block(header, _ascii(header.name), _ascii(header.linkname), b"")
    return _extended(header.name, data) + data + bytes(padded(len(data)) - len(data)) + main


def _block(header: TarHeader, name: bytes, linkname: bytes, prefix: bytes) -> bytes:
    seconds = header.mtime // _SECOND
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        header.mode,
        header.uid if header.uid <= _MAX_OCTAL_7 else 0,
        header.gid if header.gid <= _MAX_OCTAL_7 else 0,
        header.size if header.size <= _MAX_OCTAL_11 else 0,
        seconds if 0 <= seconds <= _MAX_OCTAL_11 else 0,
    )
    devices = b"%07o\0%07o\0" % (header.major, header.minor)
    return _packed(_field(name), numbers, header.kind.value, _field(linkname), devices, prefix)


def _packed(name: bytes, numbers: bytes, kind: bytes, linkname: bytes, devices: bytes, prefix: bytes) -> bytes:
    block = _WRITE.pack(name, numbers, b"        ", kind, linkname, _USTAR, devices, prefix)
    return b"%b%06o\0 %b" % (block[:148], checksum(block), block[156:])


def _records(header: TarHeader, seconds: int) -> dict[bytes, bytes]:
    """What the plain block cannot say."""
    records = {XATTR_RECORD + key.encode(): value for key, value in header.xattrs.items()} | dict(header.records)
    if len(header.name) > 100 or not header.name.isascii():
        records[b"path"] = header.name
    if len(header.linkname) > 100 or not header.linkname.isascii():
        records[b"linkpath"] = header.linkname
    for key, value, most in (
        (b"uid", header.uid, _MAX_OCTAL_7),
        (b"gid", header.gid, _MAX_OCTAL_7),
        (b"size", header.size, _MAX_OCTAL_11),
        (b"mtime", seconds, _MAX_OCTAL_11),
    ):
        if not 0 <= value <= most:
            records[key] = b"%d" % value
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _extended(name: bytes, data: bytes) -> bytes:
    """The block in front of the records. Its name is for readers that do not know PAX."""
    directory, _, base = name.rpartition(b"/")
    parts = (directory, b"PaxHeaders.0", base)
    title = _ascii(b"/".join(part for part in parts if part))[:100].rstrip(b"/")
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0, 0, 0, len(data), 0)
    return _packed(title, numbers, b"x", b"", b"", b"")


def _split(name: bytes) -> tuple[bytes, bytes]:
    """A long name as ustar's prefix and name, or ('', name) when it has no slash at a useful place."""
    cut = name.rfind(b"/", 0, min(len(name) - 1, 156) if name.endswith(b"/") else min(len(name), 156))
    rest = len(name) - cut - 1
    if cut <= 0 or not 0 < rest <= 100 or not name.isascii():
        return b"", name
    return name[:cut], name[cut + 1 :]


def _field(text: bytes) -> bytes:
    # A name cut off right after a slash would look like a directory to readers without PAX.
    return text[:100].rstrip(b"/") if len(text) > 100 and text[99:100] == b"/" else text


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else bytes(byte for byte in text if byte < 128)


# --- reading ----------------------------------------------------------------------------------------------


def decode(block: bytes) -> RawHeader | None:
    """The header that `block` holds, None for a block of zeros. Raises SourceError when it is no header."""
    if block == _ZERO_BLOCK:
        return None
    name, mode, uid, gid, size, mtime, check, kind, linkname, magic, major, minor, prefix, _ = _READ.unpack(block)
    blanked = b"%b        %b" % (block[:148], block[156:])
    stored = number(check)
    # Some old writers summed signed bytes.
    if stored != checksum(blanked) and stored != sum(byte - 256 if byte > 127 else byte for byte in blanked):
        raise SourceError("not a tar archive: a header has a wrong checksum", hint="the archive is damaged")
    name = name.partition(b"\0")[0]
    if prefix[0] and magic == _USTAR:
        if block[508:] == b"tar\0":  # star keeps two times at the end of the prefix
            prefix = prefix[:131]
        name = b"%b/%b" % (prefix.partition(b"\0")[0], name)
    return RawHeader(
        name,
        number(mode) & 0o7777,
        number(uid),
        number(gid),
        number(size),
        number(mtime) * _SECOND,
        kind,
        linkname.partition(b"\0")[0],
        major,
        minor,
        magic == _GNU,
    )


def number(field: bytes) -> int:
    """A numeric field: octal digits, or base 256 when the first bit is set (GNU)."""
    text = field.strip(b" \0")
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    if not text:
        return 0
    if field[0] & 0x80:
        # Two's complement without the marker bit.
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    head = text.partition(b"\0")[0].rstrip(b" ")
    if head != text:
        return number(head)
    raise SourceError(f"not a tar archive: {text!r} is not a number")
