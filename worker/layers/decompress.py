"""Reading a stream that may be compressed: gzip, zstd, bzip2 and xz are known by how they begin.

What comes out is bounded against archives made to explode: per call, in the memory a decoder may take, and in how
much a stream may grow. This module must not know tar.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from enum import Enum
from typing import BinaryIO, Protocol, cast

from backports import zstd
from isal import igzip_lib

from buildengine.errors import SourceError

CHUNK = 1 << 20
_INPUT = 1 << 18
_XZ_MEMORY = 1 << 29  # xz -9 needs 65 MiB; a header can ask for 4 GiB
# DEFLATE cannot do better than 1032 to 1 (zlib, "Maximum Compression Factor"). The others can, so beyond a plain
# allowance (files of zeros are legitimate) a stream may not either.
_RATIO = 1100
_ALLOWANCE = 8 << 30


class Format(Enum):
    """How a stream is compressed."""

    PLAIN = "uncompressed"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


class _Decoder(Protocol):
    """What the standard library's decompressor objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip() -> _Decoder:
    return cast(_Decoder, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _zstd() -> _Decoder:
    return cast(_Decoder, zstd.ZstdDecompressor())  # refuses windows over 128 MiB by itself


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


_DECODERS: dict[Format, Callable[[], _Decoder]] = {
    Format.GZIP: _gzip,
    Format.ZSTD: _zstd,
    Format.BZIP2: bz2.BZ2Decompressor,
    Format.XZ: _xz,
}
_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    lzma.LZMAError,
    zstd.ZstdError,
    cast(type[Exception], igzip_lib.IsalError),  # its stubs call it an instance
)


def detect(head: bytes) -> Format:
    """The format of a stream that begins with `head` (its first 8 bytes are enough)."""
    if head.startswith(b"\x1f\x8b\x08"):
        return Format.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd") or (
        len(head) >= 8 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"
    ):
        return Format.ZSTD  # or a skippable frame, RFC 8878 3.1.2
    if head.startswith(b"BZh"):
        return Format.BZIP2
    if head.startswith(b"\xfd7zXZ\0"):
        return Format.XZ
    return Format.PLAIN


class Decompressed:
    """The plain bytes of `stream`, `read` in pieces; `stream` is read to its end, so that its own checks run."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._input = _recognisable(b"", stream)
        self.format = detect(self._input)
        make = _DECODERS.get(self.format)
        self._make = make
        self._decoder = make() if make is not None else None
        self._fed = 0
        self._produced = 0
        self._ended = False

    def read(self, size: int = CHUNK) -> bytes:
        """Up to `size` bytes, none at the end. Raises SourceError when the compressed data is damaged or absurd."""
        if self._ended:
            return b""
        if self._decoder is None:
            if not self._input:
                return self._stream.read(size)
            data, self._input = self._input[:size], self._input[size:]
            return data
        while True:
            data = self._decode(size)
            if data or self._ended:
                break
        self._produced += len(data)
        if self._produced > _ALLOWANCE + _RATIO * self._fed:
            raise SourceError(f"the {self.format.value} stream grows beyond all measure", hint="it is hostile")
        return data

    def _decode(self, size: int) -> bytes:
        """One step of the decoder, which may yield nothing."""
        assert self._decoder is not None
        if self._decoder.eof:
            self._next_member()
            return b""
        piece = b""
        if self._decoder.needs_input:
            piece = self._input or self._stream.read(_INPUT)
            self._input = b""
            self._fed += len(piece)
            if not piece:
                raise SourceError(f"the {self.format.value} stream ends too early", hint="it is truncated")
        try:
            return self._decoder.decompress(piece, size)
        except _ERRORS as error:
            raise SourceError(f"the {self.format.value} stream is damaged: {error}") from error

    def _next_member(self) -> None:
        """Another member or frame may follow, or padding with zeros."""
        assert self._decoder is not None
        assert self._make is not None
        rest = self._decoder.unused_data
        while not rest.strip(b"\0"):
            rest = self._stream.read(_INPUT)
            if not rest:
                self._ended = True
                return
        rest = _recognisable(rest.lstrip(b"\0"), self._stream)
        if detect(rest) is not self.format:
            raise SourceError(f"the {self.format.value} stream is followed by something else", hint="it is damaged")
        self._input = rest
        self._decoder = self._make()


def decompress(stream: BinaryIO) -> Decompressed:
    """`stream`, decompressed by what it begins with."""
    return Decompressed(stream)


def _recognisable(data: bytes, stream: BinaryIO) -> bytes:
    """`data`, with enough more of the stream to `detect` its format: a pipe may give less than is asked for."""
    while len(data) < 8 and (more := stream.read(_INPUT)):
        data += more
    return data
