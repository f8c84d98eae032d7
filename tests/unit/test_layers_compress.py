"""Compressing and decompressing layer blobs: readable by everyone, the same bytes each time, bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from buildengine.errors import SourceError, UserError
from tests.unit.layers_trees import packed
from worker.layers import decompress as module
from worker.layers.compress import MIB, Encoder, encoder
from worker.layers.compression import Compression, compression_of, media_type
from worker.layers.decompress import CHUNK, Format, decompress, detect

TEXT = b"".join(b"%d squared is %d\n" % (i, i * i) for i in range(20_000))
PACK: dict[Format, Callable[[bytes], bytes]] = {
    Format.PLAIN: bytes,
    Format.GZIP: gzip.compress,
    Format.ZSTD: zstd.compress,
    Format.BZIP2: bz2.compress,
    Format.XZ: lambda data: lzma.compress(data, preset=0),
}


def unpacked(data: bytes) -> bytes:
    stream = decompress(io.BytesIO(data))
    return b"".join(iter(stream.read, b""))


def small(made_by: Encoder) -> Encoder:
    """The same encoder with blocks that a test can fill."""
    names = ("name", "compression", "head", "block", "tail")
    return Encoder(block_size=1000, **{name: getattr(made_by, name) for name in names})


ENCODERS = [
    *(encoder(Compression.GZIP, level) for level in (None, *range(10))),
    encoder(Compression.GZIP, reproducible=True),
    *(encoder(Compression.ZSTD, level) for level in (None, 1, 9)),
    encoder(Compression.UNCOMPRESSED),
]


@pytest.mark.parametrize("made_by", ENCODERS, ids=lambda made_by: made_by.name)
def test_blobs_are_read_by_everyone(made_by: Encoder) -> None:
    for data in (b"", b"x", TEXT, os.urandom(5000)):
        blob = packed(data, small(made_by))
        assert unpacked(blob) == data
        if made_by.compression is Compression.GZIP:
            assert gzip.decompress(blob) == data
            stream = zlib.decompressobj(31)
            assert stream.decompress(blob) == data
            assert (stream.eof, stream.unused_data) == (True, b"")  # one member only
            assert subprocess.run(["gzip", "-dc"], input=blob, capture_output=True, check=True).stdout == data
        elif made_by.compression is Compression.ZSTD:
            assert zstd.decompress(blob) == data


@pytest.mark.parametrize("compression", Compression)
def test_no_more_is_read_than_was_asked_for(compression: Compression) -> None:
    stream = decompress(io.BytesIO(packed(b"x" * 1000, small(encoder(compression)))))
    pieces = list(iter(lambda: stream.read(300), b""))
    assert b"".join(pieces) == b"x" * 1000
    assert max(map(len, pieces)) <= 300


def test_encoders_with_other_bytes_have_other_names() -> None:
    assert encoder(Compression.GZIP).name == "igzip-2"
    assert encoder(Compression.GZIP, 4).name == encoder(Compression.GZIP, 6).name
    assert encoder(Compression.GZIP, reproducible=True).name == f"zlib-{zlib.ZLIB_RUNTIME_VERSION}-6"
    assert encoder(Compression.GZIP, 0).name.startswith("zlib-")
    assert encoder(Compression.ZSTD).name.endswith("-3")


def test_higher_levels_are_smaller() -> None:
    sizes = [len(packed(TEXT, encoder(Compression.GZIP, level, reproducible=True))) for level in (0, 1, 6, 9)]
    assert sizes[0] > len(TEXT) > sizes[1] > sizes[2] > sizes[3]


@pytest.mark.parametrize("level", [1, 6, 9])
def test_every_level_of_the_fast_encoder_compresses(level: int) -> None:
    """How much it does depends on the processor: a higher level is not always smaller."""
    assert len(packed(TEXT, encoder(Compression.GZIP, level))) < len(TEXT) / 2


@pytest.mark.parametrize(
    ("compression", "level"),
    [(Compression.GZIP, 10), (Compression.GZIP, -2), (Compression.ZSTD, 0), (Compression.ZSTD, 23)],
)
def test_levels_that_do_not_exist(compression: Compression, level: int) -> None:
    with pytest.raises(UserError) as failure:
        encoder(compression, level)
    assert failure.value.hint is not None


@pytest.mark.parametrize("docker", [True, False])
@pytest.mark.parametrize("compression", list(Compression))
def test_media_types_lead_back(compression: Compression, docker: bool) -> None:
    assert compression_of(media_type(compression, docker=docker)) is compression


def test_known_media_types() -> None:
    assert media_type(Compression.GZIP, docker=True) == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert media_type(Compression.ZSTD, docker=False) == "application/vnd.oci.image.layer.v1.tar+zstd"
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    assert compression_of(foreign) is Compression.GZIP
    assert compression_of("application/vnd.oci.image.config.v1+json") is None


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", list(Format))
def test_formats_are_known_by_their_first_bytes(format: Format) -> None:
    data = TEXT * 2
    blob = PACK[format](data)
    stream = decompress(io.BytesIO(blob))
    assert stream.format is format
    pieces = list(iter(stream.read, b""))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= CHUNK
    assert stream.read() == b""


@pytest.mark.parametrize("format", [format for format in Format if format is not Format.PLAIN])
def test_several_members_and_padding(format: Format) -> None:
    blob = PACK[format](TEXT) + PACK[format](b"more")
    assert unpacked(blob) == TEXT + b"more"
    assert unpacked(blob + bytes(5000)) == TEXT + b"more"
    with pytest.raises(SourceError, match="something else"):
        unpacked(blob + b"garbage, and a lot of it")


@pytest.mark.parametrize("format", [format for format in Format if format is not Format.PLAIN])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_streams(format: Format, share: float) -> None:
    blob = PACK[format](TEXT)
    with pytest.raises(SourceError):
        unpacked(blob[: int(len(blob) * share)])


@pytest.mark.parametrize("format", [format for format in Format if format is not Format.PLAIN])
def test_damaged_streams(format: Format) -> None:
    blob = bytearray(PACK[format](TEXT))
    blob[len(blob) // 2 : len(blob) // 2 + 20] = b"\xff" * 20
    with pytest.raises(SourceError):
        unpacked(bytes(blob))


def test_bombs_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ALLOWANCE", 4 * MIB)
    bomb = zstd.compress(bytes(64 * MIB))
    stream, produced = decompress(io.BytesIO(bomb)), list[int]()
    with pytest.raises(SourceError, match="beyond all measure"):
        produced.extend(map(len, iter(stream.read, b"")))
    assert sum(produced) <= 16 * MIB
    assert len(unpacked(gzip.compress(bytes(64 * MIB)))) == 64 * MIB  # what DEFLATE can do is no bomb


def test_xz_may_not_take_all_memory() -> None:
    blob = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])
    # 40 - (2 | 1) << bits is how a block header spells the size of its dictionary; 39 asks for 3 GiB.
    position = blob.index(b"\x21\x01") + 2
    header = bytearray(blob[12 : 12 + 12])
    header[position - 12] = 39
    header[8:12] = zlib.crc32(bytes(header[:8])).to_bytes(4, "little")
    with pytest.raises(SourceError, match="damaged"):
        unpacked(blob[:12] + bytes(header) + blob[24:])


class _Dribble(io.RawIOBase):
    """A pipe that gives a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(1)


def test_pipes_may_give_little_at_once() -> None:
    for format, pack in PACK.items():
        stream = decompress(_Dribble(pack(b"hello") + (pack(b"again") if format is not Format.PLAIN else b"")))
        assert stream.format is format
        assert b"".join(iter(stream.read, b"")) == (b"helloagain" if format is not Format.PLAIN else b"hello")


def test_detection_needs_the_whole_magic() -> None:
    assert detect(b"") is detect(b"\x1f\x8b") is detect(b"BZ") is Format.PLAIN
    assert detect(b"\x50\x2a\x4d\x18\0\0\0\0") is Format.ZSTD
