"""Image archives as tar streams: written deterministically, read without trust, one member after the other.

An archive of blobs needs little of tar: regular files and directories with short names, every time stamp and
owner zero, so that the same image gives the same bytes. The reader takes what docker, skopeo, podman and GNU
tar write (ustar, GNU long names, pax `path`, `linkpath`, `size`) and bounds everything that a header claims
before it is read: the stdlib's reader loads a pax header of any size into memory. Names are keys of a
dictionary and never paths of this host.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from enum import Enum
from typing import Protocol

from buildengine.values import dataclass
from worker.oci.document import InvalidImage

_BLOCK = 512
_CHUNK = 1 << 20
_MAX_HEADER = 1 << 20
_MAX_MEMBERS = 100_000


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Kind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hard link"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of an archive. `name` has no leading or doubled slashes and no `.`; `link` is as written."""

    name: str
    kind: Kind
    size: int
    link: str = ""


class TarWriter:
    """Writes members to `sink` as they come. `finish` ends the archive."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def directory(self, name: str) -> None:
        self._header(name + "/", 0, 0o755, tarfile.DIRTYPE)

    def data(self, name: str, data: bytes) -> None:
        self.file(name, len(data), io.BytesIO(data), mode=0o644)

    def file(self, name: str, size: int, source: Source, *, mode: int = 0o444) -> None:
        """A regular file of exactly `size` bytes, the whole of `source`. Raises InvalidImage when it has others."""
        self._header(name, size, mode, tarfile.REGTYPE)
        left = size
        while left:
            data = source.read(min(left, _CHUNK))
            if not data:
                raise InvalidImage(f"{name} ends {left} bytes before its size of {size}")
            self._sink.write(data)
            left -= len(data)
        if source.read(1):  # a verifying reader compares the digest here, at its end
            raise InvalidImage(f"{name} is longer than its size of {size}")
        self._sink.write(bytes(-size % _BLOCK))

    def finish(self) -> None:
        self._sink.write(bytes(2 * _BLOCK))

    def _header(self, name: str, size: int, mode: int, kind: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.type = size, mode, kind
        self._sink.write(info.tobuf(tarfile.PAX_FORMAT))  # plain ustar unless the size needs a pax header


class TarReader:
    """Iterates over the members of `stream`; `chunks` gives the contents of the current one, once."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._name = ""

    def __iter__(self) -> Iterator[Member]:
        extended: dict[str, str] = {}
        for _ in range(_MAX_MEMBERS):
            self._skip()
            info = self._info()
            if info is None:
                return
            self._left, self._padding = info.size, -info.size % _BLOCK
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                extended |= _extension(info.type, self._extension_data())
                continue
            yield self._member(info, extended)
            extended = {}
        raise InvalidImage(f"the archive has more than {_MAX_MEMBERS} members")

    def chunks(self) -> Iterator[bytes]:
        """The contents of the current member."""
        while self._left:
            data = self._stream.read(min(self._left, _CHUNK))
            if not data:
                raise InvalidImage(f"the archive ends inside {self._name}")
            self._left -= len(data)
            yield data

    def read(self, limit: int) -> bytes:
        """The whole contents of the current member, at most `limit` bytes. Raises InvalidImage."""
        if self._left > limit:
            raise InvalidImage(f"{self._name} has {self._left} bytes, more than the {limit} allowed")
        return b"".join(self.chunks())

    def _member(self, info: tarfile.TarInfo, extended: dict[str, str]) -> Member:
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in extended):
            raise InvalidImage("the archive has a sparse member, which image archives do not")
        size = extended.get("size")
        if size is not None:
            if not size.isascii() or not size.isdigit() or len(size) > 18:
                raise InvalidImage(f"the archive has a member of size {size[:40]!r}")
            self._left = int(size)
            self._padding = -self._left % _BLOCK
        self._name = _clean(extended.get("path", info.name))
        kind = _KINDS.get(info.type, Kind.OTHER)
        if kind is not Kind.FILE and kind is not Kind.OTHER:
            self._left = self._padding = 0
        return Member(name=self._name, kind=kind, size=self._left, link=extended.get("linkpath", info.linkname))

    def _info(self) -> tarfile.TarInfo | None:
        first = self._stream.read(_BLOCK)
        block = first + self._exactly(_BLOCK - len(first)) if first else b""
        if not block.strip(b"\0"):  # an archive without its end mark is taken: what it lacks is found out later
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise InvalidImage(f"not a tar archive: {error}") from error
        if info.size < 0:
            raise InvalidImage("the archive has a member of negative size")
        return info

    def _extension_data(self) -> bytes:
        self._name = "an extended header"
        return self.read(_MAX_HEADER)

    def _skip(self) -> None:
        for _ in self.chunks():
            pass
        self._exactly(self._padding)
        self._padding = 0

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise InvalidImage("the archive is cut off")
            data += more
        return data


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
}


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extended header says of the member after it."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.rstrip(b"\0"))}
    if kind == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": _text(data.rstrip(b"\0"))}
    if kind == tarfile.XGLTYPE:
        return {}
    return dict(_pax_records(data))


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """`<length> <key>=<value>\\n`, the length counting itself (pax(1), "pax Extended Header")."""
    data = data.rstrip(b"\0")
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[at : at + length]
        at += length
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or len(record) != length or not record.endswith(b"\n"):
            raise InvalidImage("the archive has a malformed pax header")
        yield _text(key), _text(value)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))
