"""Blobs by digest: verified while they are written and while they are read, present whole or not at all.

    <root>/blobs/sha256/<hex>        the blobs
    <root>/ingest/<owner>.<random>   being written by the process whose lease is <owner>

A blob is written to `ingest`, checked, and renamed. With a `Ledger` (the store's database) a blob exists when it
has a row there: `admit` makes row and rename one transaction. Without, a file is a blob; so the store can be used
on its own. Methods are synchronous: callers move big reads and writes to a thread.

Must not know what a blob means, nor who refers to it.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, cast

from buildengine.digest import Digest
from buildengine.errors import StoreError
from buildengine.tracepoints import reach
from buildengine.values import dataclass
from cache.diskerrors import explained
from cache.writeback import begin_writeback

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ABSORBED = 1 << 20
_DIRTY = 8 << 20  # what is given to the disk at once, long before somebody waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobInfo:
    digest: Digest
    size: int


class Ledger(Protocol):
    """Who knows which blobs there are."""

    def find(self, digest: Digest, *, pin: bool = True) -> int | None:
        """The size of a blob, which with `pin` will stay for as long as this process may need it."""
        ...

    def admit(self, info: BlobInfo, place: Callable[[], None]) -> None:
        """Note the blob and call `place`, which moves the file to its name: all or nothing. A known one stays."""
        ...

    def forget(self, digest: Digest, remove: Callable[[], None]) -> None:
        """The other way round; `remove` is called when the blob has no row any more."""
        ...

    def all(self) -> list[BlobInfo]: ...


class ContentStore:
    """The blobs of one root directory. `owner` is the lease under which half-written files are found again."""

    def __init__(self, root: Path, *, ledger: Ledger | None = None, owner: str = "nobody") -> None:
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        self._ledger = ledger
        self._owner = owner
        (self._blobs / "sha256").mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be. Who reads it by this path does not verify it."""
        return self._blobs / digest.algorithm / digest.hex

    def info(self, digest: Digest, *, pin: bool = True) -> BlobInfo | None:
        """The blob, when it is here and has the size it should have. It is pinned, unless one only wants to know."""
        size = self._size(digest)
        if self._ledger is not None and size != self._ledger.find(digest, pin=pin):
            return None
        return None if size is None else BlobInfo(digest=digest, size=size)

    def open(self, digest: Digest, *, pin: bool = True) -> BinaryIO:
        """The blob as a stream that raises StoreError at its end when the bytes were not those of the digest."""
        info = self._existing(digest, pin=pin)
        reader = _VerifiedReader(io.FileIO(self.path(digest)), info)
        return cast(BinaryIO, io.BufferedReader(reader, 1 << 18))

    def read(self, digest: Digest, *, limit: int = 4 << 20) -> bytes:
        """The whole blob, verified. A blob longer than `limit` is refused before it is read."""
        info = self._existing(digest)
        if info.size > limit:
            raise StoreError(f"blob {digest} has {info.size} bytes, more than the {limit} allowed here")
        with self.open(digest) as stream:
            return stream.read()

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> BlobWriter:
        """A new blob. `expected` and `size` are checked when it is committed."""
        path = self._ingest / f"{self._owner}.{secrets.token_hex(8)}"
        return BlobWriter(path, self._admit, expected=expected, size=size)

    def put(self, data: bytes) -> BlobInfo:
        """Store a small blob."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def delete(self, digest: Digest) -> None:
        """Remove a blob; one that is not here is fine. Whether somebody needs it is the caller's to know."""

        def remove() -> None:
            self.path(digest).unlink(missing_ok=True)

        if self._ledger is None:
            remove()
        else:
            self._ledger.forget(digest, remove)

    def list(self) -> Iterator[BlobInfo]:
        if self._ledger is not None:
            yield from self._ledger.all()
            return
        for algorithm in sorted(self._blobs.iterdir()):
            for path in sorted(algorithm.iterdir()):
                yield BlobInfo(digest=Digest.of_hex(path.name, algorithm.name), size=path.stat().st_size)

    def _size(self, digest: Digest) -> int | None:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def _existing(self, digest: Digest, *, pin: bool = True) -> BlobInfo:
        info = self.info(digest, pin=pin)
        if info is None:
            raise StoreError(
                f"blob {digest} is not in the store", hint="build again; if it stays, run `pybuild debug verify-store`"
            )
        return info

    def _admit(self, info: BlobInfo, temporary: Path) -> None:
        target = self.path(info.digest)

        def place() -> None:
            with explained("cannot write to the store"):
                target.parent.mkdir(exist_ok=True)
                os.rename(temporary, target)
            reach("blob.renamed")

        if self._ledger is None:
            place()
        else:
            if self._ledger.find(info.digest) is not None and self._size(info.digest) != info.size:
                self.delete(info.digest)  # what is there is damaged: let this one take its place
            self._ledger.admit(info, place)
        reach("blob.committed")


class BlobWriter:
    """One blob on its way in. A context manager: leaving it without `commit` leaves nothing."""

    def __init__(
        self,
        path: Path,
        admit: Callable[[BlobInfo, Path], None],
        *,
        expected: Digest | None,
        size: int | None,
    ) -> None:
        self._path = path
        self._admit = admit
        self._expected = expected
        self._size = size
        self._hash = hashlib.new(_hashlib_name(expected))
        with explained("cannot write to the store"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._dirty = 0
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of `data`. Too many bytes are refused at once: nobody fills our disk."""
        view = memoryview(data)
        if self._size is not None and self.written + view.nbytes > self._size:
            raise StoreError(f"{self._what()} has more than the {self._size} bytes it should have")
        self._hash.update(view)
        self._place(self.written, view)
        self.written += view.nbytes
        return view.nbytes

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Keep a piece from beyond what is `written`; `absorb` takes it in when all before it has come.

        Threads may place pieces beside each other and beside one that writes or absorbs.
        """
        view = memoryview(data)
        if self._size is None or offset + view.nbytes > self._size:
            raise StoreError(f"{self._what()} has more than the {self._size} bytes it should have")
        self._place(offset, view)

    def absorb(self, end: int) -> None:
        """Take in what was placed from `written` up to `end`, all of it."""
        buffer = memoryview(bytearray(min(_ABSORBED, end - self.written)))
        while self.written < end:
            with explained("cannot read from the store"):
                count = os.preadv(self._fd, [buffer[: end - self.written]], self.written)
            if count == 0:
                raise StoreError(f"{self._what()} lost a piece while it was written")
            self._hash.update(buffer[:count])
            self.written += count

    def _place(self, offset: int, view: memoryview) -> None:
        with explained("cannot write to the store"):
            rest = view.cast("B")
            while rest:
                count = os.pwrite(self._fd, rest, offset)
                rest, offset = rest[count:], offset + count
        self._dirty += view.nbytes
        if self._dirty >= _DIRTY:
            self._dirty = 0
            begin_writeback(self._fd)

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest.of_hex(self._hash.hexdigest(), self._hash.name)

    def commit(self) -> BlobInfo:
        """Check the blob and give it its place. It survives this process at once, a power cut after a `sync`."""
        digest = self.digest
        if self._size is not None and self.written != self._size:
            raise StoreError(f"{self._what()} has {self.written} bytes, not the {self._size} it should have")
        if self._expected is not None and digest != self._expected:
            raise StoreError(f"digest mismatch: got {digest} for {self._expected}")
        reach("blob.written")
        info = BlobInfo(digest=digest, size=self.written)
        self._admit(info, self._path)
        self.discard()
        return info

    def discard(self) -> None:
        """Close, and forget what is not committed. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._path.unlink(missing_ok=True)

    def _what(self) -> str:
        return "the blob" if self._expected is None else f"blob {self._expected}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.discard()


class _VerifiedReader(io.RawIOBase):
    """Length and digest are checked here, where the bytes are read, so that no caller can forget."""

    def __init__(self, file: io.FileIO, info: BlobInfo) -> None:
        self._file = file
        self._info = info
        self._hash = hashlib.new(_hashlib_name(info.digest))
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        count = self._file.readinto(view)
        self._hash.update(view[:count])
        self._count += count
        ended = count == 0 and len(view) > 0
        damaged = ended and (self._count != self._info.size or self._hash.hexdigest() != self._info.digest.hex)
        if damaged or self._count > self._info.size:
            raise StoreError(
                f"blob {self._info.digest} is damaged: its bytes are not those of its digest",
                hint="run `pybuild debug verify-store`, then `pybuild prune`",
            )
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _hashlib_name(digest: Digest | None) -> str:
    name = "sha256" if digest is None else digest.algorithm
    if name not in ("sha256", "sha512"):
        raise StoreError(f"blobs cannot have {name} digests")
    return name
