"""A lease is a file that a live process keeps locked: `leases/<id>`. What it owns in the store carries its id.

When the process dies, however it dies, the kernel drops the lock, and the next command to open the store
sweeps what the dead one had begun (`cache.recovery`). Leases are taken and swept under the store's opening
lock only, so no sweeper ever sees a file between its creation and its locking.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path


class Lease:
    """This process's. Its life is that of the open store."""

    __slots__ = ("_fd", "_path", "id")

    def __init__(self, directory: Path) -> None:
        self.id = secrets.token_hex(8)
        self._path = directory / self.id
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def end(self) -> None:
        """Call it when nothing is left that carries the id."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def owners(directory: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The ids of the living and of the dead that left something."""
    living, dead = set(), set()
    for path in directory.iterdir():
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # ended well, just now
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            living.add(path.name)
        else:
            dead.add(path.name)
        finally:
            os.close(fd)
    return frozenset(living), frozenset(dead)
