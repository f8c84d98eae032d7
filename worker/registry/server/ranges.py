"""Which bytes a header means: `Range` of a request for a blob, `Content-Range` of a chunk. Pure."""

from __future__ import annotations

import re

from buildengine.values import dataclass
from worker.registry.server.answers import Code, Refusal

_BYTES = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_CHUNK = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`length` bytes from `start` on."""

    start: int
    length: int

    @property
    def last(self) -> int:
        return self.start + self.length - 1


def requested(header: str, size: int) -> Span | None:
    """The part of `size` bytes that a Range header asks for; None: all of it. Raises Refusal with 416.

    RFC 9110, 14.2: what is not understood, or is several ranges, may be answered with the whole. A range that ends
    before it begins is refused, as the conformance tests of the distribution-spec want it.
    """
    match = _BYTES.fullmatch(header.strip().replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        end = min(int(last), size - 1) if last else size - 1
    else:
        start, end = max(size - int(last), 0), size - 1
    if start > end:
        raise Refusal(
            Code.SIZE_INVALID,
            f"the blob has {size} bytes",
            status=416,
            detail={"range": header[:100]},
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return Span(start=start, length=end - start + 1)


def chunk(header: str) -> Span:
    """The place of a chunk: `0-4095`, both ends inclusive (spec.md, "Pushing a blob in chunks"). Raises Refusal."""
    match = _CHUNK.fullmatch(header.strip())
    if match is None or int(match[1]) > int(match[2]):
        message = "the Content-Range of a chunk is its first and its last byte, as in 0-4095"
        raise Refusal(Code.BLOB_UPLOAD_INVALID, message, detail={"Content-Range": header[:100]})
    return Span(start=int(match[1]), length=int(match[2]) - int(match[1]) + 1)


def received(count: int) -> str:
    """The Range header of an upload. Nothing and one byte look the same; docker's registry does so too."""
    return f"0-{max(count - 1, 0)}"
