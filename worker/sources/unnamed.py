"""Files without a name (open(2), O_TMPFILE) until they are whole: whoever is killed meanwhile leaves nothing."""

from __future__ import annotations

import hashlib
import os
import secrets

from buildengine.digest import Digest
from buildengine.errors import HttpError
from buildengine.values import dataclass

_STEP = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What a file gets beside its bytes. `modified` is in seconds since the epoch."""

    mode: int
    uid: int
    gid: int
    modified: int


class Body:
    """An unnamed file that is written in large steps and hashed as it grows."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._left = limit
        self._pending: list[bytes] = []
        self._held = 0
        self._hash = hashlib.sha256()

    def take(self, chunk: bytes) -> bool:
        """Keep `chunk`; True when it is time to `flush`."""
        self._left -= len(chunk)
        if self._left < 0:
            raise HttpError("it is larger than a source may be")
        self._pending.append(chunk)
        self._held += len(chunk)
        return self._held >= _STEP

    def flush(self) -> None:
        for chunk in self._pending:
            self._hash.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._fd, view) :]
        self._pending, self._held = [], 0

    @property
    def digest(self) -> Digest:
        return Digest.of_hex(self._hash.hexdigest())


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
