"""Reading tar: archives of GNU tar and tarfile in every format, and those that nobody should make."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildengine.errors import SourceError
from tests.unit.layers_trees import archive, file, read_entries
from worker.layers.pax import nanoseconds, parse_records
from worker.layers.tar import BLOCK, END, Kind, TarHeader, encode, padded
from worker.layers.tarreader import Data, TarReader

Entries = list[tuple[TarHeader, bytes]]


def collect(chunks: Iterable[bytes]) -> Entries:
    """Every entry with its whole contents, holes filled in."""
    entries: Entries = []
    for event in read_entries(chunks):
        if isinstance(event, TarHeader):
            entries.append((event, bytes(event.size)))
        else:
            header, contents = entries[-1]
            end = event.offset + len(event.view)
            entries[-1] = (header, contents[: event.offset] + bytes(event.view) + contents[end:])
    return entries


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b" * 120, b"\xff"]), st.binary(max_size=2000)), max_size=6),
    st.integers(1, 3000),
)
def test_chunks_may_be_cut_anywhere(files: list[tuple[bytes, bytes]], size: int) -> None:
    data = archive(*(file(name, contents) for name, contents in files))
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    assert [(header.name, contents) for header, contents in collect(pieces)] == files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tarfile_archives(format: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format, encoding="utf-8") as written:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/" + "n" * 90, tarfile.REGTYPE), ("l", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.mtime = kind, 0o4751, 1234, 1700000000
            member.size = 5 if kind == tarfile.REGTYPE else 0
            member.linkname = "t" * 95 if kind == tarfile.SYMTYPE else ""
            written.addfile(member, io.BytesIO(b"hello"))
        if format != tarfile.USTAR_FORMAT:
            member = tarfile.TarInfo("x" * 240)
            member.uid, member.size, member.mtime = 5_000_000, 3, -7
            written.addfile(member, io.BytesIO(b"abc"))
    entries = collect([stream.getvalue()])
    assert [header.name for header, _ in entries][:3] == [b"d/", b"d/" + b"n" * 90, b"l"]
    assert {(header.mode, header.uid, header.mtime) for header, _ in entries[:3]} == {
        (0o4751, 1234, 1700000000 * 10**9)
    }
    assert (entries[1][1], entries[2][0].linkname) == (b"hello", b"t" * 95)
    if format != tarfile.USTAR_FORMAT:
        assert (entries[3][0].name, entries[3][0].uid, entries[3][0].mtime) == (b"x" * 240, 5_000_000, -7 * 10**9)
        assert entries[3][1] == b"abc"


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_gnu_tar_archives(tmp_path: Path, format: str) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir" / "file").write_bytes(b"data" * 300)
    os.link(tree / "dir" / "file", tree / "dir" / "link")
    os.symlink("file", tree / "dir" / "sym")
    if format not in ("v7", "ustar"):
        (tree / ("n" * 200)).write_bytes(b"long")
    done = subprocess.run(
        ["tar", f"--format={format}", "--sort=name", "-cf", "-", "."], cwd=tree, capture_output=True, check=True
    )
    entries = {header.name: (header, contents) for header, contents in collect([done.stdout])}
    assert entries[b"./dir/"][0].kind is Kind.DIRECTORY
    assert entries[b"./dir/file"][1] == b"data" * 300
    assert (entries[b"./dir/link"][0].kind, entries[b"./dir/link"][0].linkname) == (Kind.LINK, b"./dir/file")
    assert entries[b"./dir/sym"][0].linkname == b"file"
    if format not in ("v7", "ustar"):
        assert entries[b"./" + b"n" * 200][1] == b"long"


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
@pytest.mark.parametrize("parts", [0, 1, 3, 30])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str], parts: int) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as sparse:
        for part in range(parts):
            sparse.seek(part * (1 << 17))
            sparse.write(b"%d" % part * 1000)
        sparse.truncate(max(1, parts) * (1 << 17))
    done = subprocess.run(
        ["tar", *options, "--sparse", "-cf", "-", "sparse"], cwd=tmp_path, capture_output=True, check=True
    )
    for size in (700, 1 << 20):
        chunks = [done.stdout[start : start + size] for start in range(0, len(done.stdout), size)]
        ((header, contents),) = collect(chunks)
        assert header.name == b"sparse"
        assert contents == path.read_bytes()
        assert header.holes > 0


def test_global_records_hold_until_they_are_replaced() -> None:
    def records(kind: bytes, text: bytes) -> bytes:
        block = bytearray(encode(TarHeader(name=b"g", kind=Kind.FILE, size=len(text))))
        block[156:157] = kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block) + text + bytes(padded(len(text)) - len(text))

    data = records(b"g", b"8 gid=7\n9 uid=42\n") + archive(file(b"a"))[:-1024]
    data += records(b"x", b"9 uid=43\n") + archive(file(b"b"))[:-1024] + archive(file(b"c"))
    assert [(header.uid, header.gid) for header, _ in collect([data])] == [(42, 7), (43, 7), (42, 7)]


def test_old_directories_end_with_a_slash() -> None:
    block = bytearray(encode(TarHeader(name=b"d/", kind=Kind.FILE)))
    block[156:157] = b"\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert collect([bytes(block)])[0][0].kind is Kind.DIRECTORY


def test_a_link_with_a_size_has_no_data() -> None:
    header = TarHeader(name=b"l", kind=Kind.LINK, size=1000, linkname=b"a")
    entries = collect([encode(header) + archive(file(b"b"))])
    assert [(entry.name, entry.size) for entry, _ in entries] == [(b"l", 0), (b"b", 0)]


def test_what_follows_the_end_is_not_read() -> None:
    assert [header.name for header, _ in collect([archive(file(b"a")) + b"anything" * 1000])] == [b"a"]


@pytest.mark.parametrize("data", [b"", END, bytes(BLOCK), END * 20])
def test_empty_archives(data: bytes) -> None:
    assert collect([data]) == []


def _raw(kind: bytes, size: int, **fields: bytes) -> bytes:
    block = bytearray(encode(TarHeader(name=b"name", kind=Kind.FILE)))
    block[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 0 else b"\xff" * 11 + b"\xf0"
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(text: bytes) -> bytes:
    return _raw(b"x", len(text)) + text + bytes(padded(len(text)) - len(text))


HOSTILE = {
    "no tar": b"#!/bin/sh\n" * 60,
    "truncated header": archive(file(b"a", b"x" * 600))[:300],
    "truncated data": archive(file(b"a", b"x" * 600))[:800],
    "truncated padding": archive(file(b"a", b"x" * 600))[:1120],
    "truncated records": archive(file(b"n" * 200))[:600],
    "records without an entry": archive(file(b"n" * 200))[:1024],
    "absurd size": _raw(b"0", 1 << 60),
    "negative size": _raw(b"0", -1),
    "absurd extended header": _raw(b"x", 1 << 30),
    "absurd long name": _raw(b"L", 1 << 50),
    "chain of extended headers": _pax(b"9 uid=43\n") * 40,
    "unknown type": _raw(b"Z", 0),
    "multi-volume": _raw(b"M", 0),
    "data after the end": bytes(BLOCK) + archive(file(b"a")),
    "owner that cannot be": _pax(b"18 uid=4294967295\n") + archive(file(b"a")),
    "owner that is no number": _pax(b"9 uid=-3\n") + archive(file(b"a")),
    "time that is none": _pax(b"12 mtime=1e\n") + archive(file(b"a")),
    "record too long": _pax(b"99 uid=43\n") + archive(file(b"a")),
    "record without a value": _pax(b"6 uid\n") + archive(file(b"a")),
    "record of zero length": _pax(b"0 uid=1\n") + archive(file(b"a")),
    "zero byte in a name": _pax(b"12 path=a\0b\n") + archive(file(b"a")),
    "zero byte in an attribute's name": _pax(b"27 SCHILY.xattr.user.a\0b=1\n") + archive(file(b"a")),
    "sparse map out of order": _pax(b"22 GNU.sparse.major=0\n26 GNU.sparse.map=9,1,5,1\n22 GNU.sparse.size=20\n")
    + archive(file(b"a", b"xy")),
    "sparse map outside": _pax(b"22 GNU.sparse.map=0,9\n21 GNU.sparse.size=5\n") + archive(file(b"a", b"x" * 9)),
    "sparse map too short": _pax(b"22 GNU.sparse.map=0,1\n21 GNU.sparse.size=5\n") + archive(file(b"a", b"x" * 9)),
    "sparse map malformed": _pax(b"22 GNU.sparse.map=0,x\n21 GNU.sparse.size=5\n") + archive(file(b"a", b"x")),
    "absurd sparse size": _pax(b"22 GNU.sparse.map=0,1\n33 GNU.sparse.size=99999999999999\n")
    + archive(file(b"a", b"x")),
    "sparse map in a body of other data": _pax(b"22 GNU.sparse.major=1\n25 GNU.sparse.realsize=1\n")
    + archive(file(b"a", b"hello\n" * 100)),
    "endless sparse map": _pax(b"22 GNU.sparse.major=1\n25 GNU.sparse.realsize=1\n")
    + archive(file(b"a", b"999999\n" + b"1\n" * 600_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("size", [512, 1 << 20])
def test_hostile_archives_are_refused(name: str, size: int) -> None:
    data = HOSTILE[name]
    if size == 512 and len(data) > 1 << 20:
        size = 1 << 16
    with pytest.raises(SourceError):
        collect(data[start : start + size] for start in range(0, len(data), size))


@given(st.binary(max_size=3000), st.integers(0, 2500), st.binary(min_size=1, max_size=40))
@settings(max_examples=200)
def test_damage_never_breaks_the_reader(contents: bytes, position: int, damage: bytes) -> None:
    data = bytearray(archive(file(b"n" * 150, contents), file(b"b")))
    data[position : position + len(damage)] = damage
    reader, seen = TarReader(), 0
    try:
        for event in reader.feed(bytes(data)):
            seen += len(event.view) if isinstance(event, Data) else 0
        reader.close()
    except SourceError:
        pass
    assert seen <= len(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"-1.25", -1_250_000_000),
        (b"0.1234567891", 123_456_789),
        (b"3.", 3 * 10**9),
    ],
)
def test_times(text: bytes, value: int) -> None:
    assert nanoseconds(text) == value


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=9).filter(lambda key: b"=" not in key and b" " not in key),
        st.binary(max_size=200),
    )
)
def test_records(records: dict[bytes, bytes]) -> None:
    text = b""
    for key, value in records.items():
        rest = len(key) + len(value) + 3
        length = next(n for n in range(rest, rest + 9) if n == rest + len(str(n)))
        text += b"%d %b=%b\n" % (length, key, value)
    assert parse_records(text) == records
