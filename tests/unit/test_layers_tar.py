"""The header codec against Python's tarfile, and golden bytes of what Go's archive/tar writes."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.errors import SourceError
from tests.unit.layers_trees import read_entries
from worker.layers.tar import BLOCK, END, XATTR_RECORD, Kind, TarHeader, checksum, decode, encode, number, padded

SECOND = 1_000_000_000
names = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and name.strip(b"/") == name)
sizes = st.one_of(st.just(0), st.integers(0, 1 << 40))
headers = st.builds(
    TarHeader,
    name=names,
    kind=st.sampled_from([Kind.DIRECTORY, Kind.SYMLINK, Kind.LINK, Kind.FIFO, Kind.CHAR, Kind.BLOCK]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    mtime=st.integers(-(1 << 31), 1 << 34).map(lambda seconds: seconds * SECOND),
    linkname=names,
    xattrs=st.dictionaries(st.text("abc.é", min_size=1, max_size=9), st.binary(max_size=40), max_size=3),
)


@given(headers)
def test_what_is_written_is_read(header: TarHeader) -> None:
    (read,) = read_entries([encode(header) + END])
    assert read == header


@given(headers)
def test_tarfile_reads_the_same(header: TarHeader) -> None:
    with tarfile.open(fileobj=io.BytesIO(encode(header) + END), errors="surrogateescape") as archive:
        member = archive.next()
    assert member is not None
    assert member.name.encode("utf-8", "surrogateescape") == header.name
    assert (member.mode, member.uid, member.gid) == (header.mode, header.uid, header.gid)
    assert member.mtime == header.mtime // SECOND
    assert member.type == header.kind.value
    assert member.linkname.encode("utf-8", "surrogateescape") == header.linkname


@given(name=names, size=sizes)
def test_sizes_that_do_not_fit_become_records(name: bytes, size: int) -> None:
    data = encode(TarHeader(name=name, kind=Kind.FILE, size=size))
    assert len(data) % BLOCK == 0
    if size > 0o77777777777:
        assert b" size=%d\n" % size in data


def test_a_plain_header_is_one_ustar_block() -> None:
    data = encode(TarHeader(name=b"usr/bin/true", kind=Kind.FILE, mode=0o755, size=35664, mtime=1700000000 * SECOND))
    assert len(data) == BLOCK
    assert data[:148].rstrip(b"\0") == (
        b"usr/bin/true" + bytes(88) + b"0000755\x000000000\x000000000\x0000000105520\x0014524770400"
    )
    assert data[148:157] == b"%06o\0 0" % checksum(data[:148] + b"        " + data[156:])
    assert data[257:265] == b"ustar\x0000"
    assert data[329:345] == b"0000000\x000000000\x00"


def test_an_extended_header_is_named_and_sorted_as_go_does() -> None:
    header = TarHeader(
        name=b"d/\xc3\xbc", kind=Kind.FILE, uid=3_000_000, xattrs={"user.b": b"\0\xff", "security.capability": b"c"}
    )
    data = encode(header)
    assert data[:14] == b"d/PaxHeaders.0"
    assert data[156:157] == b"x"
    assert data[329:345] == bytes(16)  # Go leaves the device fields of this block empty
    records = b"".join(
        b"%d %b\n" % (len(text) + 4, text)
        for text in (
            XATTR_RECORD + b"security.capability=c",
            XATTR_RECORD + b"user.b=\0\xff",
            b"path=d/\xc3\xbc",
            b"uid=3000000",
        )
    )
    assert data[BLOCK : BLOCK + len(records)] == records
    assert data[2 * BLOCK :][:3] == b"d/\0"  # the main header keeps what is ASCII
    assert data[2 * BLOCK + 108 :][:7] == b"0000000"


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        (b"n" * 100, 1),
        (b"n" * 101, 3),
        (b"d" * 155 + b"/" + b"n" * 100, 1),
        (b"d" * 156 + b"/" + b"n" * 99, 3),
        (b"d" * 90 + b"/" + b"w" * 20 + b"/", 1),
        (b"n" * 100 + b"/", 3),
        (b"\xc3\xbc", 3),
    ],
)
def test_which_names_need_an_extended_header(name: bytes, blocks: int) -> None:
    data = encode(TarHeader(name=name, kind=Kind.DIRECTORY))
    assert len(data) == blocks * BLOCK
    (read,) = read_entries([data])
    assert isinstance(read, TarHeader)
    assert read.name == name


def test_a_name_cut_at_a_slash_does_not_look_like_a_directory() -> None:
    data = encode(TarHeader(name=b"d" * 99 + b"/" + b"n" * 120, kind=Kind.FILE))
    assert data[-BLOCK:][:100].rstrip(b"\0") == b"d" * 99


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0\0\0\0\0", 0o644),
        (b"\0" * 8, 0),
        (b"        ", 0),
        (b"644\0junk", 0o644),
        (b"\x80\0\0\0\0\0\0\x05", 5),
        (b"\xff" * 7 + b"\xfb", -5),
        (b"\x80\0\0\0\1\0\0\0\0\0\0\0", 1 << 56),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert number(field) == value


@pytest.mark.parametrize("field", [b"9\0", b"-7", b"0o7", b"1_0", b"0x1", b"+1"])
def test_what_is_no_number(field: bytes) -> None:
    with pytest.raises(SourceError):
        number(field)


@given(st.binary(min_size=BLOCK, max_size=BLOCK))
def test_the_fast_checksum_is_the_sum(block: bytes) -> None:
    assert checksum(block) == sum(block)
    ascii_block = bytes(byte & 127 for byte in block)
    assert checksum(ascii_block) == sum(ascii_block)
    assert checksum(b"\x7f" * BLOCK) == 127 * BLOCK


@given(st.binary(min_size=BLOCK, max_size=BLOCK))
def test_arbitrary_blocks_are_refused(block: bytes) -> None:
    with pytest.raises(SourceError):
        decode(b"\1" + block[1:])


def test_a_block_of_zeros_is_no_header() -> None:
    assert decode(bytes(BLOCK)) is None


def test_star_and_signed_checksums() -> None:
    block = bytearray(encode(TarHeader(name=b"n", kind=Kind.FILE)))
    block[345:351] = b"prefix"
    block[500:508] = b"\xc0" * 8
    block[508:512] = b"tar\0"
    block[148:156] = b"        "
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    raw = decode(bytes(block))
    assert raw is not None
    assert raw.name == b"prefix/n"


def test_only_ustar_has_a_prefix() -> None:
    """The old GNU format keeps times and a sparse map there."""
    block = bytearray(encode(TarHeader(name=b"n", kind=Kind.FILE)))
    block[257:265] = b"ustar  \0"
    block[345:357] = b"14524770400\0"
    block[148:156] = b"%06o\0 " % checksum(bytes(block[:148]) + b"        " + bytes(block[156:]))
    raw = decode(bytes(block))
    assert raw is not None
    assert (raw.name, raw.gnu) == (b"n", True)


def test_padding() -> None:
    assert [padded(size) for size in (0, 1, 512, 513)] == [0, 512, 512, 1024]
