"""Reads tar: bytes go in as they come, headers and pieces of data come out.

It understands v7, ustar, PAX (local and global), GNU long names, base-256 numbers, star, and sparse files of all
four formats. It trusts nothing: checksums, sizes and the length of extended headers are bounded and checked, and
an archive that is damaged, cut off or absurd raises SourceError.

This module must not know files or threads: it only sees bytes, so that its user decides where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from buildengine.errors import SourceError
from buildengine.ids import LARGEST_ID
from buildengine.values import dataclass
from worker.layers.pax import (
    SPARSE_MAP,
    Segments,
    check_segments,
    decimal,
    nanoseconds,
    parse_records,
    sparse_from_body,
    sparse_from_header,
    sparse_from_records,
)
from worker.layers.tar import (
    BLOCK,
    NO_XATTRS,
    XATTR_RECORD,
    Kind,
    RawHeader,
    TarHeader,
    decode,
    number,
    padded,
)

MAX_SIZE = 1 << 44  # 16 TiB: the largest file of ext4
MAX_HOLES = 1 << 40  # and the largest sparse file, which costs its sender nothing
_MAX_EXTENDED = 1 << 20  # as Go's reader
_MAX_CHAIN = 32  # extended headers in front of one entry

_MAX_TIME = (1 << 40) * 1_000_000_000  # more than any file system keeps, less than utimensat(2) takes

_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE}
_EXTENDED = frozenset(b"xXgLK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A piece of the file whose header came last. `view` is valid until the next piece is asked for."""

    view: memoryview
    offset: int
    last: bool


class TarReader:
    """`feed` every chunk and use up what it yields; then `close`. Headers of files with data are followed by it."""

    def __init__(self) -> None:
        self._carry = b""
        self._segments: list[tuple[int, int]] = []  # what is left of the current file, last piece first
        self._skip = 0  # bytes of padding to leave out
        self._globals: dict[bytes, bytes] = {}
        self._records: dict[bytes, bytes] = {}
        self._chain = 0
        self._zeros = 0
        self._name = b""

    def feed(self, chunk: bytes) -> Iterator[TarHeader | Data]:
        """The entries and pieces that are complete with `chunk`."""
        buffer = self._carry + chunk if self._carry else chunk
        view = memoryview(buffer)
        position, end = 0, len(buffer)
        while self._zeros < 2:
            if self._segments:
                while self._segments and position < end:
                    piece = self._piece(view, position, end)
                    position += len(piece.view)
                    yield piece
                if self._segments:
                    break
            if self._skip:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
            if end - position < BLOCK:
                break
            header, used = self._header(view, position)
            if not used:
                break
            position += used
            if header is not None:
                yield header
        self._carry = buffer[position:] if self._zeros < 2 else b""

    def close(self) -> None:
        """To be called at the end of the stream. Raises SourceError when an entry is not complete."""
        # An archive without its two blocks of zeros is accepted, as every other reader does.
        if self._segments or self._carry or self._skip or self._chain:
            where = f" in the middle of {_shown(self._name)}" if self._name else ""
            raise SourceError(f"the archive ends{where} before it is complete", hint="it is truncated")

    def _piece(self, view: memoryview, position: int, end: int) -> Data:
        offset, length = self._segments.pop()
        step = min(length, end - position)
        if step < length:
            self._segments.append((offset + step, length - step))
        return Data(view=view[position : position + step], offset=offset, last=not self._segments)

    def _header(self, view: memoryview, position: int) -> tuple[TarHeader | None, int]:
        """What starts at `position` and the bytes it took: (None, 0) when more bytes are needed to know."""
        raw = decode(bytes(view[position : position + BLOCK]))
        if raw is None:
            self._zeros += 1
            return None, BLOCK
        if self._zeros:
            raise SourceError("not a tar archive: data after its end", hint="the archive is damaged")
        if raw.type[0] in _EXTENDED:
            return None, self._extended(raw, view[position + BLOCK :])
        if raw.type not in _KINDS:
            raise SourceError(
                f"the archive has an entry of unknown type {raw.type!r} ({_shown(raw.name)})",
                hint="files, directories, links, devices and FIFOs are understood",
            )
        return self._entry(raw, view[position:])

    def _extended(self, raw: RawHeader, rest: memoryview) -> int:
        if not 0 <= raw.size <= _MAX_EXTENDED or self._chain >= _MAX_CHAIN:
            raise SourceError("the archive has an extended header of absurd length", hint="it is damaged or hostile")
        if len(rest) < padded(raw.size):
            return 0
        data = bytes(rest[: raw.size])
        self._chain += 1
        if raw.type == b"g":
            self._globals.update(parse_records(data))
        elif raw.type in b"xX":
            self._records.update(parse_records(data))
        else:
            self._records[b"path" if raw.type == b"L" else b"linkpath"] = data.partition(b"\0")[0]
        return BLOCK + padded(raw.size)

    def _entry(self, raw: RawHeader, view: memoryview) -> tuple[TarHeader | None, int]:
        records = self._globals | self._records if self._globals else self._records
        kind = _KINDS[raw.type]
        if raw.type == b"\0" and raw.name.endswith(b"/"):
            kind = Kind.DIRECTORY  # v7 had no type for directories
        stored = decimal(records, b"size") if records.get(b"size") else raw.size
        size, used, segments = stored, BLOCK, None
        if raw.type == b"S":
            found = sparse_from_header(view)
            if found is None:
                return None, 0
            segments, size, used = found
        elif kind is Kind.FILE and any(key.startswith(b"GNU.sparse.") for key in records):
            sparse = _pax_sparse(records, view[BLOCK:])
            if sparse is None:
                return None, 0
            segments, size, map_size = sparse
            used, stored = BLOCK + map_size, stored - map_size
        name, self._name = self._named(raw, records), raw.name
        self._plan(kind, size, stored, segments, name)
        header = _merge(raw, records, kind, name, size, size - stored if segments is not None else 0)
        self._records, self._chain = {}, 0
        return header, used

    def _named(self, raw: RawHeader, records: Mapping[bytes, bytes]) -> bytes:
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or raw.name
        if b"\0" in name or b"\0" in records.get(b"linkpath", b""):
            raise SourceError("not a tar archive: a name contains a zero byte")
        return name

    def _plan(self, kind: Kind, size: int, stored: int, segments: Segments | None, name: bytes) -> None:
        """Remember which bytes that follow belong to the entry."""
        most = MAX_HOLES if segments is not None else MAX_SIZE
        if not 0 <= stored <= MAX_SIZE or not 0 <= size <= most:
            raise SourceError(f"the archive claims an absurd size for {_shown(name)}", hint="it is damaged or hostile")
        if segments is not None:
            check_segments(segments, size, stored)
        # Links, devices and directories may carry a size but no data, as Go and Python read them.
        if kind is Kind.FILE:
            pieces = segments if segments is not None else ((0, size),)
            self._segments = [piece for piece in reversed(pieces) if piece[1]]
            self._skip = padded(stored) - stored


def _pax_sparse(records: Mapping[bytes, bytes], body: memoryview) -> tuple[Segments, int, int] | None:
    """The map, the size and the length of the map in the body, or None when more bytes are needed."""
    if records.get(b"GNU.sparse.major") == b"1":
        found = sparse_from_body(body)
        return (found[0], decimal(records, b"GNU.sparse.realsize"), found[1]) if found is not None else None
    if SPARSE_MAP not in records and b"GNU.sparse.size" not in records:
        raise SourceError("not a tar archive: a sparse file without a map")
    return sparse_from_records(records), decimal(records, b"GNU.sparse.size"), 0


def _merge(raw: RawHeader, records: Mapping[bytes, bytes], kind: Kind, name: bytes, size: int, holes: int) -> TarHeader:
    """The entry that the block and the records say together."""
    uid, gid, mtime, linkname, xattrs = raw.uid, raw.gid, raw.mtime, raw.linkname, NO_XATTRS
    if records:
        uid = decimal(records, b"uid") if records.get(b"uid") else uid
        gid = decimal(records, b"gid") if records.get(b"gid") else gid
        mtime = nanoseconds(records[b"mtime"]) if records.get(b"mtime") else mtime
        linkname = records.get(b"linkpath") or linkname
        xattrs = _xattrs(records)
    if not (0 <= uid <= LARGEST_ID and 0 <= gid <= LARGEST_ID):
        raise SourceError(f"the archive gives {_shown(name)} an owner that cannot exist ({uid}:{gid})")
    device = kind is Kind.CHAR or kind is Kind.BLOCK
    return TarHeader(
        name=name,
        kind=kind,
        mode=raw.mode,
        uid=uid,
        gid=gid,
        size=size if kind is Kind.FILE else 0,
        mtime=mtime if abs(mtime) < _MAX_TIME else 0,
        linkname=linkname,
        major=number(raw.major) if device else 0,
        minor=number(raw.minor) if device else 0,
        xattrs=xattrs,
        holes=holes,
    )


def _xattrs(records: Mapping[bytes, bytes]) -> Mapping[str, bytes]:
    found = {
        key[len(XATTR_RECORD) :].decode("utf-8", "surrogateescape"): value
        for key, value in records.items()
        if key.startswith(XATTR_RECORD)
    }
    if any("\0" in name for name in found):
        raise SourceError("not a tar archive: the name of an attribute contains a zero byte")
    return found


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
