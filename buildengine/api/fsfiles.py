"""The files that a receiver has asked for, read one after the other, in pieces. All of it blocks.

Whoever sends does so from a thread, one call at a time, in whatever loop he has.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable

from buildengine.inroot import open_in_root

_CHUNK = 64 << 10
_READ, _PIECES = 1 << 20, 1024  # bytes and pieces of files, at once
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class Files:
    """`opener` gives a descriptor of a file's contents, ours to close, or raises OSError. `requested` are pairs of a
    file's number and its path. `close` it when `read` does not run."""

    def __init__(self, opener: Callable[[bytes], int]) -> None:
        self._opener = opener
        self._number = 0
        self._fd = -1
        self.requested: deque[tuple[int, bytes]] = deque()

    @property
    def busy(self) -> bool:
        return self._fd >= 0 or bool(self.requested)

    def read(self) -> list[tuple[int, bytes]]:
        """Pieces of about 1 MiB together; an empty one ends a file."""
        pieces: list[tuple[int, bytes]] = []
        size = 0
        while size < _READ and len(pieces) < _PIECES and self._open():
            data = os.read(self._fd, _CHUNK)
            pieces.append((self._number, data))
            size += len(data)
            if not data:
                self.close()
        return pieces

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> bool:
        """A file that cannot be opened is an empty one: fsutil has no other word for it."""
        if self._fd < 0 and self.requested:
            self._number, path = self.requested.popleft()
            try:
                self._fd = self._opener(path)
            except OSError:
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd >= 0


def open_regular(root: int, path: bytes) -> int:
    """A regular file below the open directory `root`; what is none raises OSError."""
    fd = open_in_root(root, path, _FILE, follow=False)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(path)
    return fd
