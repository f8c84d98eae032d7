"""The two ways a layer comes to its content: a step writes it (`NewLayer`), or a blob is unpacked (`Filling`).

Both are handles of work in progress. Committing is one transaction after the content is whole; until then a
killed process leaves nothing that anybody would take for a layer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import trio

from buildengine.errors import InternalError
from buildengine.limits import DISK, offload
from buildengine.tracepoints import reach
from cache import ghosts
from cache import layerrows as rows
from cache.db import Database
from cache.diskerrors import explained
from cache.durability import Durability
from cache.holds import Holds
from cache.layerrows import Layer, LayerMissing
from cache.locks import Lock
from cache.overlay import TreeMount
from cache.removal import remove_tree
from cache.snapshots import Snapshotter, make_layer


class NewLayer:
    """A writable tree that becomes layer `id`. `discard` after `commit`, or twice, does nothing.

    `tree` is where to write. `directory` is where the layer will be; writing to it directly is right only for a
    layer on nothing, whose tree is that very directory.
    """

    def __init__(
        self,
        id: str,
        layer: Path,
        db: Database,
        durability: Durability,
        *,
        holds: Holds,
        snapshots: Snapshotter,
    ) -> None:
        self.id = id
        self.directory = layer / "fs"
        self.tree = TreeMount()
        self._db = db
        self._durability = durability
        self._holds = holds
        self._snapshots = snapshots
        self._ended = False

    async def commit(self, *, size: int | None = None) -> str:
        """Nobody has the tree mounted any more: make it a layer. It is pinned until somebody holds it."""
        if self._ended:
            raise InternalError(f"layer {self.id} was committed or discarded before")

        if self._snapshots.quick:
            self._finish()
        else:
            await offload(self._finish, limiter=DISK)
        reach("layer.filled")
        await self._db.write_soon(lambda c: self._commit(c, size))
        self._ended = True
        reach("layer.committed")
        return self.id

    def _finish(self) -> None:
        with explained("cannot make a layer of what a step has changed"):
            self._snapshots.finish(self.id)

    async def discard(self) -> None:
        if self._ended:
            return
        self._ended = True
        with trio.CancelScope(shield=True):
            await self._db.write(lambda c: rows.delete(c, self.id))
            await offload(self._snapshots.discard, self.id, limiter=DISK)

    def _commit(self, connection: sqlite3.Connection, size: int | None) -> None:
        query = "UPDATE layers SET state = 'filled', owner = NULL, size = ? WHERE id = ? AND state = 'active'"
        if connection.execute(query, (size, self.id)).rowcount != 1:
            raise LayerMissing(self.id)
        self._durability.mark(connection, "layer", self.id)
        self._holds.pin(connection, "layer", self.id)


class Filling:
    """The empty directory of a lazy layer, locked: no other task or process fills it now."""

    def __init__(
        self, layer: Layer, root: Path, db: Database, durability: Durability, *, holds: Holds, lock: Lock
    ) -> None:
        self.layer = layer
        self._top = root / layer.id
        self._db = db
        self._durability = durability
        self._holds = holds
        self._lock = lock
        self._ended = False
        below = None if layer.parent is None else root / layer.parent / "fs"
        with explained("cannot make a layer"):
            self.directory = make_layer(self._top, below)

    async def commit(self, *, size: int | None = None, marks: Sequence[str] = ()) -> None:
        """The directory holds the whole layer. `marks` are those of `cache.ghosts`."""
        if self._ended:
            raise InternalError(f"layer {self.layer.id} was committed or discarded before")
        for name in marks:
            ghosts.mark(self._top, name)
        reach("layer.filled")
        await self._db.write(lambda c: self._commit(c, size))
        self._ended = True
        self._lock.release()
        reach("layer.committed")

    async def discard(self) -> None:
        """Leave the layer lazy. After `commit`, or twice, it does nothing."""
        if self._ended:
            return
        self._ended = True
        with trio.CancelScope(shield=True):
            try:
                await offload(remove_tree, self._top, limiter=DISK)
            finally:
                self._lock.release()

    def _commit(self, connection: sqlite3.Connection, size: int | None) -> None:
        query = "UPDATE layers SET state = 'filled', owner = NULL, size = ? WHERE id = ? AND state = 'lazy'"
        if connection.execute(query, (size, self.layer.id)).rowcount != 1:
            raise LayerMissing(self.layer.id)
        self._durability.mark(connection, "layer", self.layer.id)
        self._holds.pin(connection, "layer", self.layer.id)
