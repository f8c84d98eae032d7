"""Locks by name that hold between tasks and between processes: one flock'ed file each, gone when unlocked.

The kernel lets go of a dead process's locks, so nothing has to be cleaned up to go on. A file is removed by
whoever holds it exclusively; therefore whoever gets the lock looks whether the file is still the one at that
name, and otherwise tries again. Waiting is polling: flock(2) in a thread could not be cancelled.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from blake3 import blake3

from cache.diskerrors import explained

_FIRST_DELAY, _LAST_DELAY = 0.001, 0.05


class Lock:
    """A lock that is held. `release` may be called twice."""

    __slots__ = ("_fd", "_path", "_turn")

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._turn: _Turn | None = None

    def fileno(self) -> int:
        return self._fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if _flock(fd, fcntl.LOCK_EX):  # a shared one may have company, then the last to leave removes the file
            self._path.unlink(missing_ok=True)
        os.close(fd)
        if self._turn is not None:
            self._turn.end()


class Locks:
    """The locks of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turns: dict[str, _Turn] = {}

    def try_lock(self, name: str, *, shared: bool = False) -> Lock | None:
        """The lock, or None when somebody has it: another process, or another holder in this one."""
        path = self._directory / blake3(name.encode("utf-8", "surrogateescape")).hexdigest(20)
        while True:
            with explained("cannot lock the store"):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                os.close(fd)
                return None
            if _is_at(fd, path):
                return Lock(fd, path)
            os.close(fd)

    async def lock(self, name: str) -> Lock:
        """The lock, exclusively. Tasks of this process get it in the order in which they came."""
        turn = self._turns.setdefault(name, _Turn(self._turns, name))
        await turn.begin()
        try:
            delay = _FIRST_DELAY
            while (lock := self.try_lock(name)) is None:
                await trio.sleep(delay)
                delay = min(2 * delay, _LAST_DELAY)
        except BaseException:
            turn.end()
            raise
        lock._turn = turn
        return lock

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[None]:
        lock = await self.lock(name)
        try:
            yield
        finally:
            lock.release()

    def sweep(self) -> None:
        """Remove the files that dead processes left."""
        for path in self._directory.iterdir():
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if _flock(fd, fcntl.LOCK_EX) and _is_at(fd, path):
                path.unlink()
            os.close(fd)


class _Turn:
    """The queue of this process's tasks for one name."""

    __slots__ = ("_count", "_name", "_semaphore", "_turns")

    def __init__(self, turns: dict[str, _Turn], name: str) -> None:
        self._turns, self._name = turns, name
        self._semaphore = trio.Semaphore(1)
        self._count = 0

    async def begin(self) -> None:
        self._count += 1
        try:
            await self._semaphore.acquire()
        except BaseException:
            self._leave()
            raise

    def end(self) -> None:
        self._semaphore.release()
        self._leave()

    def _leave(self) -> None:
        self._count -= 1
        if not self._count:
            del self._turns[self._name]


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
