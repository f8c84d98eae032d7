"""What stands between a header block and an entry: PAX records and maps of sparse files, as values.

POSIX.1-2017 pax, "pax Extended Header"; for sparse files the GNU tar manual, appendix "Sparse Formats": the old
GNU header and PAX formats 0.0, 0.1 and 1.0. This module must not know streams: it gets the bytes it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from buildengine.errors import SourceError
from worker.layers.tar import BLOCK, number, padded

SPARSE_MAP = b"GNU.sparse.map"
MAX_MAP = 1 << 20  # bytes of a sparse map; Go's reader allows as much

Segments = tuple[tuple[int, int], ...]  # (offset, length) of the data of a sparse file, in order

_SECONDS = re.compile(rb"(-?)(\d{1,12})(?:\.(\d*))?")


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header. Repeated pairs of sparse format 0.0 are gathered under `SPARSE_MAP`."""
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise SourceError("not a tar archive: a PAX record is malformed", hint="the archive is damaged")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        else:
            records[key] = value
        position = end
    if pairs:
        records[SPARSE_MAP] = b",".join(pairs)
    return records


def nanoseconds(text: bytes) -> int:
    """A PAX time: decimal seconds, negative before 1970, with any number of decimals."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise SourceError(f"not a tar archive: {text[:40]!r} is not a time")
    value = int(match[2]) * 1_000_000_000 + int((match[3] or b"").ljust(9, b"0")[:9])
    return -value if match[1] else value


def decimal(records: Mapping[bytes, bytes], key: bytes) -> int:
    """The value of a record that holds a size or an id."""
    text = records[key]
    if not text.isdigit() or len(text) > 19:
        raise SourceError(f"not a tar archive: {text[:40]!r} is not a number ({key.decode('ascii', 'replace')})")
    return int(text)


# --- sparse maps ------------------------------------------------------------------------------------------


def sparse_from_records(records: Mapping[bytes, bytes]) -> Segments:
    """Formats 0.0 and 0.1: the map is in the records."""
    parts = records.get(SPARSE_MAP, b"").split(b",")
    if parts == [b""]:
        return ()
    return _pairs(parts)


def sparse_from_header(data: memoryview) -> tuple[Segments, int, int] | None:
    """The old GNU format: four pairs in the header block, more in blocks that follow it.

    Returns the map, the size of the file and the bytes used up, or None when `data` is too short.
    """
    fields: list[bytes] = []
    position, start, count, flag = 0, 386, 4, 482
    while True:
        block = bytes(data[position : position + BLOCK])
        if len(block) < BLOCK:
            _bounded(position)
            return None
        for pair in range(count):
            fields += (block[start + 24 * pair :][:12], block[start + 24 * pair + 12 :][:12])
        position += BLOCK
        if not block[flag]:
            break
        start, count, flag = 0, 21, 504
    numbers = [number(field) for field in fields]
    pairs = [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2) if fields[i].strip(b"\0 ")]
    return tuple(pairs), number(bytes(data[483:495])), position


def sparse_from_body(data: memoryview) -> tuple[Segments, int] | None:
    """Format 1.0: the body begins with the map, decimal lines in whole blocks: a count, then pairs.

    Returns the map and the bytes used up, or None when `data` is too short.
    """
    head = bytes(data[:MAX_MAP])
    count_line, newline, _ = head.partition(b"\n")
    if not newline:
        _bounded(len(head))
        return None
    if not count_line.isdigit() or len(count_line) > 7:
        raise SourceError("not a tar archive: a sparse map is malformed")
    lines = head.split(b"\n", 2 * int(count_line) + 1)
    if len(lines) < 2 * int(count_line) + 2:
        _bounded(len(head))
        return None
    used = padded(len(head) - len(lines[-1]))
    return (_pairs(lines[1:-1]), used) if len(data) >= used else None


def check_segments(segments: Segments, size: int, stored: int) -> None:
    """Raises SourceError unless the map is in order, inside the file, and covers what is stored."""
    end = total = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            raise SourceError("not a tar archive: a sparse map is out of order or outside its file")
        end = offset + length
        total += length
    if total != stored:
        raise SourceError("not a tar archive: a sparse map does not fit its data")


def _pairs(parts: list[bytes]) -> Segments:
    if len(parts) % 2 or not all(part.isdigit() and len(part) < 20 for part in parts):
        raise SourceError("not a tar archive: a sparse map is malformed")
    numbers = [int(part) for part in parts]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _bounded(size: int) -> None:
    if size >= MAX_MAP:
        raise SourceError("a sparse map in the archive is larger than 1 MiB")
