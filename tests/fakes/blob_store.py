"""A content store in memory, as far as reading an archive needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from buildengine.digest import Digest


@dataclass(frozen=True, kw_only=True)
class Info:
    digest: Digest
    size: int


class Writer:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self._blobs = blobs
        self._data = b""

    def write(self, data: bytes) -> None:
        self._data += data

    def commit(self) -> Info:
        digest = Digest.sha256(self._data)
        self._blobs[digest] = self._data
        return Info(digest=digest, size=len(self._data))


class BlobStore:
    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}

    @contextmanager
    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> Iterator[Writer]:
        yield Writer(self.blobs)

    def read(self, digest: Digest, *, limit: int) -> bytes:
        assert len(self.blobs[digest]) <= limit
        return self.blobs[digest]

    def info(self, digest: Digest) -> Info | None:
        data = self.blobs.get(digest)
        return None if data is None else Info(digest=digest, size=len(data))
