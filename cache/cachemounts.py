"""Cache mounts: plain directories that outlive builds, found by name and by the tree they started as.

    shared    any number of users at once, in one directory
    private   one user at a time; who comes while all directories are busy gets a new one
    locked    one user at a time; who comes while all are busy waits

Users hold a file lock of the directory, so the rules hold between processes, and a hold in the database, so that
nobody prunes it. The name is hashed: no name leads anywhere. What is made here is not a cache of anything the
store could check, so after a power cut whatever was in use since the last flush is thrown away.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import trio
from blake3 import blake3

from buildengine.errors import InternalError
from buildengine.limits import DISK, offload
from buildengine.tracepoints import reach
from cache.db import Database, storable
from cache.durability import Durability
from cache.locks import Lock, Locks
from cache.removal import remove_tree
from cache.trees import copy_tree

Stack = tuple[str, ...]
OpenTree = Callable[[Stack], AbstractContextManager[int]]
SHARINGS = ("shared", "private", "locked")
_POLL = 0.05


class CacheMounts:
    def __init__(self, *, root: Path, db: Database, locks: Locks, durability: Durability, owner: str) -> None:
        self._root = root / "cachemounts"
        self._db = db
        self._locks = locks
        self._durability = durability
        self._owner = owner
        self._users: Counter[str] = Counter()
        self._uses: dict[tuple[str, str], _Use] = {}

    @asynccontextmanager
    async def acquire(
        self,
        id: str,
        *,
        base: Sequence[str] = (),
        sharing: str = "shared",
        open_tree: OpenTree | None = None,
        owner: str = "",
        kind: str = "exec.cachemount",
        description: str = "",
    ) -> AsyncIterator[Path]:
        """The directory of `id`, for one user. A new one is a copy of the tree `base`, through `open_tree`.

        One `owner` (a step that mounts the same id twice) that comes again gets what it already has. `kind` is
        what `du` calls it.
        """
        if sharing not in SHARINGS:
            raise InternalError(f"{sharing!r} is no way to share a cache mount")
        key = _key(id, base)
        use = self._uses.get((owner, key)) if owner else None
        if use is None:
            text = storable(description or f"cached mount {id}")
            new = _New(name=storable(id), key=key, base=tuple(base), open_tree=open_tree, kind=kind, description=text)
            directory, lock = await self._find(new, sharing)
            use = _Use(directory, lock)
            if owner:
                self._uses[owner, key] = use
        use.count += 1
        try:
            yield self._root / use.id
        finally:
            use.count -= 1
            if not use.count:
                self._uses.pop((owner, key), None)
                try:
                    with trio.CancelScope(shield=True):
                        await self._db.write(lambda c: self._end(c, use.id))
                finally:
                    use.lock.release()

    def locks(self, owner: str) -> tuple[int, ...]:
        """The locks by which `owner` has its directories. Whoever holds copies keeps others out, after us too: a step
        that outlives a killed engine for a moment still writes there."""
        return tuple(use.lock.fileno() for (who, _), use in self._uses.items() if who == owner)

    async def forget(self, ids: Iterable[str]) -> None:
        """Let the next users of these names start anew (`--no-cache`, once for each build)."""
        for id in ids:
            await self._retire(storable(id))

    async def _find(self, new: _New, sharing: str) -> tuple[str, Lock]:
        if sharing != "locked":
            async with self._locks.exclusive(f"cachemounts {new.key}"):
                found = await self._try(new.key, shared=sharing == "shared")
                return found or await self._make(new, shared=sharing == "shared")
        async with self._locks.exclusive(f"cachemounts queue {new.key}"):  # who came first is served first
            while True:
                async with self._locks.exclusive(f"cachemounts {new.key}"):
                    found = await self._try(new.key, shared=False)
                    if found or not self._directories(new.key):
                        return found or await self._make(new, shared=False)
                await trio.sleep(_POLL)

    def _directories(self, key: str) -> list[str]:
        query = "SELECT id FROM cachemounts WHERE key = ? AND state = 'ready' ORDER BY created, id"
        return self._db.read(lambda c: [id for (id,) in c.execute(query, (key,))])

    async def _try(self, key: str, *, shared: bool) -> tuple[str, Lock] | None:
        for id in self._directories(key):
            lock = self._locks.try_lock(f"cachemount {id}", shared=shared)
            if lock is None:
                continue
            if await self._begin(id, lock):
                return id, lock
            lock.release()  # pruned or forgotten a moment ago
        return None

    async def _begin(self, id: str, lock: Lock) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM cachemounts WHERE id = ? AND key IS NOT NULL AND state = 'ready'"
            if connection.execute(query, (id,)).fetchone() is None:
                return False
            self._hold(connection, id)
            return True

        try:
            return await self._db.write(write)
        except BaseException:
            lock.release()
            raise

    async def _make(self, new: _New, *, shared: bool) -> tuple[str, Lock]:
        id = secrets.token_hex(12)
        lock = self._locks.try_lock(f"cachemount {id}", shared=shared)
        if lock is None:
            raise InternalError(f"cache mount {id} is locked before it exists")
        row = (id, new.name, new.key, new.kind, new.description, self._owner, time.time())
        insert = """INSERT INTO cachemounts (id, name, key, kind, description, state, owner, created)
            VALUES (?, ?, ?, ?, ?, 'filling', ?, ?)"""
        try:
            await self._db.write(lambda c: c.execute(insert, row).rowcount)
            await offload(_fill, self._root / id, new.base, new.open_tree, limiter=DISK)
            reach("cachemount.filled")
            await self._db.write(lambda c: self._ready(c, id))
            reach("cachemount.committed")
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._db.write(lambda c: c.execute("DELETE FROM cachemounts WHERE id = ?", (id,)).rowcount)
                await offload(remove_tree, self._root / id, limiter=DISK)
            lock.release()
            raise
        return id, lock

    def _ready(self, connection: sqlite3.Connection, id: str) -> None:
        connection.execute("UPDATE cachemounts SET state = 'ready', owner = NULL WHERE id = ?", (id,))
        self._hold(connection, id)

    def _hold(self, connection: sqlite3.Connection, id: str) -> None:
        insert = "INSERT OR IGNORE INTO holds (kind, id, lease) VALUES ('cachemount', ?, ?)"
        connection.execute(insert, (id, self._owner))
        self._durability.mark(connection, "cachemount", id)
        self._users[id] += 1

    def _end(self, connection: sqlite3.Connection, id: str) -> None:
        self._users[id] -= 1
        if not self._users[id]:
            del self._users[id]
            connection.execute(
                "DELETE FROM holds WHERE kind = 'cachemount' AND id = ? AND lease = ?", (id, self._owner)
            )
        query = "UPDATE cachemounts SET last_used = ?, usage_count = usage_count + 1 WHERE id = ?"
        if connection.execute(query, (time.time(), id)).rowcount:
            self._durability.mark(connection, "cachemount", id)

    async def _retire(self, name: str) -> None:
        """Nobody finds them any more; those in use stay until they are pruned, the others go at once."""

        def write(connection: sqlite3.Connection) -> list[str]:
            ids = [id for (id,) in connection.execute("SELECT id FROM cachemounts WHERE name = ?", (name,))]
            connection.execute("UPDATE cachemounts SET key = NULL WHERE name = ? AND state = 'ready'", (name,))
            return [id for id in ids if delete(connection, id)]

        for id in await self._db.write(write):
            await offload(remove_tree, self._root / id, limiter=DISK)


class _Use:
    __slots__ = ("count", "id", "lock")

    def __init__(self, id: str, lock: Lock) -> None:
        self.id, self.lock, self.count = id, lock, 0


class _New:
    __slots__ = ("base", "description", "key", "kind", "name", "open_tree")

    def __init__(
        self, *, name: str, key: str, base: Stack, open_tree: OpenTree | None, kind: str, description: str
    ) -> None:
        self.name, self.key, self.base, self.open_tree = name, key, base, open_tree
        self.kind, self.description = kind, description


def delete(connection: sqlite3.Connection, id: str) -> bool:
    """Delete the row, if it is ready and nobody uses it; its directory is garbage then."""
    query = """DELETE FROM cachemounts WHERE id = ? AND state = 'ready'
        AND NOT EXISTS (SELECT 1 FROM holds WHERE kind = 'cachemount' AND holds.id = cachemounts.id)"""
    gone = connection.execute(query, (id,)).rowcount == 1
    if gone:
        connection.execute("DELETE FROM unsynced WHERE kind = 'cachemount' AND id = ?", (id,))
    return gone


def _fill(directory: Path, base: Stack, open_tree: OpenTree | None) -> None:
    if not base:
        directory.mkdir(mode=0o755)
        directory.chmod(0o755)  # whatever the umask
        return
    if open_tree is None:
        raise InternalError("a cache mount with a base needs a way to open it")
    with open_tree(base) as root:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            copy_tree([fd], directory)
        finally:
            os.close(fd)


def _key(id: str, base: Sequence[str]) -> str:
    return blake3("\0".join([id, *base]).encode("utf-8", "surrogateescape")).hexdigest(20)
