"""Files without a name (open(2), O_TMPFILE) until they are whole: whoever is killed meanwhile leaves nothing."""

from __future__ import annotations

import hashlib
import os
import secrets

from buildengine.digest import Digest
from buildengine.errors import HttpError
from buildengine.values import dataclass
from worker.sources.gunzip import Gunzip

_STEP = 1 << 20
_GZIP_STEP = 1 << 16  # what comes of it can be a thousand times as much, and a step cannot be cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What a file gets beside its bytes. `modified` is in seconds since the epoch."""

    mode: int
    uid: int
    gid: int
    modified: int


class Body:
    """An unnamed file that is written in large steps and hashed as it grows. `gunzip` undoes its content coding.

    Neither what comes nor what is written may be more than `limit` bytes. Raises HttpError.
    """

    def __init__(self, fd: int, limit: int, gunzip: Gunzip | None = None) -> None:
        self._fd = fd
        self._left = limit
        self._room = limit
        self._gunzip = gunzip
        self._step = _STEP if gunzip is None else _GZIP_STEP
        self._pending: list[bytes] = []
        self._held = 0
        self._hash = hashlib.sha256()

    def take(self, chunk: bytes) -> bool:
        """Keep `chunk`; True when it is time to `flush`."""
        self._left = _less(self._left, chunk)
        self._pending.append(chunk)
        self._held += len(chunk)
        return self._held >= self._step

    def flush(self) -> None:
        for chunk in self._pending:
            for piece in (chunk,) if self._gunzip is None else self._gunzip.feed(chunk):
                self._write(piece)
        self._pending, self._held = [], 0

    def finish(self) -> None:
        """After the last chunk."""
        self.flush()
        if self._gunzip is not None:
            self._gunzip.finish()

    def _write(self, piece: bytes) -> None:
        self._room = _less(self._room, piece)
        self._hash.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]

    @property
    def digest(self) -> Digest:
        return Digest.of_hex(self._hash.hexdigest())


def _less(left: int, data: bytes) -> int:
    left -= len(data)
    if left < 0:
        raise HttpError("it is larger than a source may be")
    return left


def unnamed_file(directory: int) -> int:
    """A file that is gone when its descriptor is, whatever happens."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError:  # not every file system can (open(2), O_TMPFILE): then it had a name for a moment
        name = f".{secrets.token_hex(8)}"
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
        os.unlink(name, dir_fd=directory)
        return fd


def place(fd: int, directory: int, name: str, looks: Looks) -> None:
    """Give the unnamed file its name in `directory`, and its looks; copy it when it cannot have a name there."""
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
    except OSError:  # on another file system, or one without O_TMPFILE
        copy = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            _copy(fd, copy)
            _finish(copy, looks)
        finally:
            os.close(copy)
    else:
        _finish(fd, looks)


def _finish(fd: int, looks: Looks) -> None:
    os.fchown(fd, looks.uid, looks.gid)
    os.fchmod(fd, looks.mode)  # after chown, which clears the set-id bits
    os.utime(fd, (looks.modified, looks.modified))


def _copy(source: int, target: int) -> None:
    offset = 0
    # Not copy_file_range(2): between file systems it may say EXDEV, and then is when this is called.
    while count := os.sendfile(target, source, offset, 64 * _STEP):
        offset += count
