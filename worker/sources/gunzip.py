"""The content coding gzip (RFC 9110 8.4.1.3), undone as it comes.

Facts: Go's net/http asks every server for it and undoes it, so BuildKit's sources are what was meant before the coding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from isal import igzip_lib

from buildengine.errors import HttpError

_PIECE = 1 << 20
_DAMAGED = cast(type[Exception], igzip_lib.IsalError)  # its stubs call it an instance


class Gunzip:
    """Members one after the other, each against its checksum and its length. Bytes go in with `feed`."""

    def __init__(self) -> None:
        self._decoder = _decoder()
        self._is_within = False  # a member

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes of `data`, in pieces of at most 1 MiB. Raises HttpError for what is no gzip."""
        try:
            while data:
                yield self._decoder.decompress(data, _PIECE)
                while not (self._decoder.needs_input or self._decoder.eof):
                    yield self._decoder.decompress(b"", _PIECE)
                self._is_within = not self._decoder.eof
                data = b""
                if self._decoder.eof:
                    data = self._decoder.unused_data
                    self._decoder = _decoder()
        except _DAMAGED as error:
            raise HttpError(f"its content encoding gzip is damaged: {error}") from error

    def finish(self) -> None:
        """Raises HttpError when the last member is not whole."""
        if self._is_within:
            raise HttpError("its content encoding gzip ends too early")


def _decoder() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
