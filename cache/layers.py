"""Layers: made by steps, filled from blobs, held while they are needed. A stack is a tuple of layer ids, base first.

    active   layers/<id> is being written by the process that owns it; not visible to anyone else
    lazy     known by its descriptor at a registry; no directory
    filled   layers/<id>/fs is whole and never changes again

A row is written before its directory is made and deleted before the directory is, so a directory without a row is
garbage whoever was killed when. What a step writes goes through `NewLayer`, what is unpacked through `Filling`.

Knows nothing of tar, registries or mounts.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from buildengine.digest import Digest
from buildengine.errors import InternalError
from buildengine.limits import DB, DISK, offload
from buildengine.tracepoints import reach
from cache import ghosts, origins
from cache import layerrows as rows
from cache.db import Database, storable
from cache.diskerrors import explained
from cache.durability import Durability
from cache.holds import Holds
from cache.layerrows import Layer, LayerBlob, LayerMissing, RemoteBlob
from cache.locks import Locks
from cache.newlayer import Filling, NewLayer
from cache.overlay import TreeMount
from cache.removal import remove_tree
from cache.snapshots import Snapshotter

__all__ = ["Filling", "Layer", "LayerBlob", "LayerMissing", "Layers", "NewLayer", "RemoteBlob"]

Stack = tuple[str, ...]


class Layers:
    def __init__(
        self,
        *,
        root: Path,
        db: Database,
        holds: Holds,
        locks: Locks,
        durability: Durability,
        snapshots: Snapshotter,
        owner: str,
    ) -> None:
        self._root = root / "layers"
        self._db = db
        self._holds = holds
        self._locks = locks
        self._durability = durability
        self._snapshots = snapshots
        self._owner = owner

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def snapshotter(self) -> str:
        """How trees are made: overlay or copy."""
        return self._snapshots.name

    def get(self, id: str) -> Layer:
        """Raises LayerMissing."""
        layer = self._db.read(lambda c: rows.find(c, id))
        if layer is None:
            raise LayerMissing(id)
        return layer

    def exists(self, id: str) -> bool:
        return self._db.read(lambda c: rows.find(c, id)) is not None

    def of(self, stack: Sequence[str]) -> tuple[Layer, ...]:
        """All layers of a stack. Raises LayerMissing."""
        return tuple(self._db.read(lambda c: rows.find_all(c, stack)))

    def missing(self, stack: Sequence[str]) -> tuple[Layer, ...]:
        """The layers that must be filled before the stack is a tree."""
        return tuple(layer for layer in dict.fromkeys(self.of(stack)) if not layer.filled)

    def lowers(self, stack: Sequence[str]) -> TreeMount:
        """The layers' directories as they are, for whoever reads overlay format itself and mounts nothing."""
        layers = self._filled(stack)
        return TreeMount(lowers=tuple(str(self.directory(layer.id)) for layer in reversed(layers)))

    def tree(self, stack: Sequence[str]) -> TreeMount:
        """A read-only view. All layers must be filled. The copying snapshotter blocks here: see `prepare`."""
        layers = self._filled(stack)
        if len(layers) == 1 and layers[0].parent is None and layers[0].remote is None:
            return self._snapshots.view(stack, plain=True)
        return self._snapshots.view(stack, plain=False, strays=self._strays(layers))

    async def prepare(self, stack: Sequence[str]) -> TreeMount:
        """`tree`, in a thread: with the copying snapshotter the first view of a stack is much work."""
        return await offload(self.tree, stack, limiter=DISK)

    def directory(self, id: str) -> Path:
        """Where the files of a filled layer are, in overlay upper format: to be read, never to be changed."""
        return self._root / id / "fs"

    def origins(self, digest: Digest) -> tuple[str, ...]:
        """The repositories (`host/path`) that are known to hold a layer's blob: whence it came first."""
        return self._db.read(lambda c: origins.of(c, digest))

    def of_blob(self, digest: Digest) -> Layer | None:
        """A layer that came, or can be had, as this blob."""
        return self._db.read(lambda c: origins.layer(c, digest))

    # --- making -------------------------------------------------------------------------------------------

    async def explicit(self, id: str, below: Sequence[str]) -> str:
        """The filled layer `id`, which was made on `below`, as one that means the same on other layers: itself, if it
        is nothing but its changes (`cache.explicit`)."""
        from cache.explicit import write_changes  # few builds merge

        layer = await self.create(below, description=self.get(id).description, raw=True)
        try:
            lowers = [self.directory(each) for each in reversed(below)]
            is_other = await offload(write_changes, self.directory(id), lowers, layer.directory, limiter=DISK)
            return await layer.commit() if is_other else id
        finally:
            await layer.discard()

    async def create(
        self, stack: Sequence[str], *, kind: str = "regular", description: str = "", raw: bool = False
    ) -> NewLayer:
        """A writable tree on top of `stack`, which the caller holds. Commit it or discard it.

        `raw`: what is written, in overlay upper format, is the layer itself.
        """
        stack = tuple(stack)
        layer = self._new(stack, kind=kind, description=description)
        new = NewLayer(
            layer.id, self._root / layer.id, self._db, self._durability, holds=self._holds, snapshots=self._snapshots
        )

        def begin() -> TreeMount:
            self._db.write_nowait(write)
            strays = {} if raw else self._strays(self.of(stack))
            with explained("cannot make a layer"):
                return self._snapshots.begin(layer.id, () if raw else stack, strays=strays)

        def write(connection: sqlite3.Connection) -> None:
            below = rows.find_all(connection, stack)
            _require_filled(below)
            rows.insert(connection, layer, below, state=rows.ACTIVE, owner=self._owner)

        try:
            new.tree = await offload(begin, limiter=DB if self._snapshots.quick else DISK)
        except BaseException:
            await new.discard()
            raise
        reach("layer.created")
        return new

    async def add_remote(
        self,
        *,
        parent: Sequence[str],
        diff_id: Digest,
        chain_id: Digest,
        remote: RemoteBlob,
        description: str = "",
        kind: str = "regular",
        created: float | None = None,
    ) -> str:
        """A lazy layer on the stack `parent`; where the chain is known already, that layer with one more origin.

        `created`: when it was made, if its image says so.
        """
        parent = tuple(parent)
        layer = replace(
            self._new(parent, kind=kind, description=description), diff_id=diff_id, chain_id=chain_id, remote=remote
        )
        if created is not None:
            layer = replace(layer, created=created)

        def write(connection: sqlite3.Connection) -> str:
            query = "SELECT id FROM layers WHERE chain_id = ? AND state != 'active' ORDER BY state, created LIMIT 1"
            found = connection.execute(query, (chain_id,)).fetchone()
            if found is None:
                rows.insert(connection, layer, rows.find_all(connection, parent), state=rows.LAZY, owner=self._owner)
            else:
                _merge_remote(connection, found[0], remote)
            id: str = layer.id if found is None else found[0]
            self._holds.pin(connection, "layer", id)
            return id

        return await self._db.write(write)

    async def fill(self, id: str) -> Filling | None:
        """The directory of a lazy layer, to unpack into; None when it is filled, by us or another process meanwhile."""
        if self.get(id).filled:
            return None
        lock = await self._locks.lock(f"layer {id}")
        try:
            layer = self.get(id)
            if layer.filled:
                lock.release()
                return None
            await offload(remove_tree, self._root / id, limiter=DISK)  # what a killed process left
            return Filling(layer, self._root, self._db, self._durability, holds=self._holds, lock=lock)
        except BaseException:
            lock.release()
            raise

    async def set_diff_ids(self, named: Mapping[str, tuple[Digest, Digest | None]]) -> None:
        """What the tars of these layers are called, and perhaps their chains, known once somebody has written them."""
        query = "UPDATE layers SET diff_id = ?, chain_id = coalesce(?, chain_id) WHERE id = ?"
        values = [(diff_id, chain_id, id) for id, (diff_id, chain_id) in named.items()]
        if values:
            await self._db.write(lambda c: c.executemany(query, values).rowcount)

    async def add_blob(self, id: str, blob: LayerBlob) -> None:
        """Remember that the blob, which is in the store, is this layer packed. It stays as long as the layer."""
        row = (id, blob.compression, blob.level, blob.digest, blob.size, blob.media_type)

        def write(connection: sqlite3.Connection) -> None:
            if rows.find(connection, id) is None:
                raise LayerMissing(id)
            connection.execute(
                "INSERT OR REPLACE INTO layer_blobs (layer, compression, level, digest, size, media_type, annotations)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, json.dumps(dict(blob.annotations))),
            )

        await self._db.write(write)

    async def add_origin(self, digest: Digest, origin: str) -> None:
        """Remember that the repository `origin` (`host/path`) holds this blob of a layer."""
        if origin not in self.origins(digest):
            await self._db.write(lambda c: origins.add(c, digest, origin))

    def blobs(self, id: str) -> tuple[LayerBlob, ...]:
        query = """SELECT compression, level, digest, size, media_type, annotations FROM layer_blobs
            WHERE layer = ? ORDER BY compression, level"""
        found = self._db.read(lambda c: c.execute(query, (id,)).fetchall())
        return tuple(
            LayerBlob(
                compression=compression,
                level=level,
                digest=Digest(digest),
                size=size,
                media_type=media_type,
                annotations=json.loads(annotations),
            )
            for compression, level, digest, size, media_type, annotations in found
        )

    # --- holding ------------------------------------------------------------------------------------------

    def hold(self, stack: Sequence[str]) -> None:
        """Keep these layers, once more, until `release`. Hold first, then look whether they `exists`."""
        self._holds.hold(stack)

    def release(self, stack: Sequence[str]) -> None:
        self._holds.release(stack)

    def _new(self, stack: Stack, *, kind: str, description: str) -> Layer:
        return Layer(
            id=secrets.token_hex(12),
            parent=stack[-1] if stack else None,
            kind=kind,
            description=storable(description),
            created=time.time(),
        )

    def own_stacks(self, ids: Iterable[str]) -> Mapping[str, Stack]:
        """What each layer was made on, with itself on top; and the same of those below it. Raises LayerMissing."""
        return self._db.read(lambda c: rows.own_stacks(c, ids))

    def _strays(self, layers: Sequence[Layer]) -> Mapping[str, Stack]:
        """The layers of this stack that are not to be shown as they are, each with what it is to be compared with
        first: a layer that came as a blob may hide whole directories, which here are not only those of its own base."""
        strays: dict[str, Stack] = dict.fromkeys(self._db.read(lambda c: rows.strays(c, layers)), ())
        for layer in (layer for layer in layers if layer.remote is not None):
            if layer.id in strays and ghosts.is_marked(self._root / layer.id, ghosts.OPAQUE):
                own = self.own_stacks([layer.id])[layer.id]
                strays[layer.id] = () if self.missing(own) else own
            elif ghosts.is_marked(self._root / layer.id, ghosts.GHOSTS):
                strays.setdefault(layer.id, ())
        return strays

    def _filled(self, stack: Sequence[str]) -> tuple[Layer, ...]:
        layers = self.of(stack)
        _require_filled(layers)
        return layers


def _require_filled(layers: Sequence[Layer]) -> None:
    lazy = [layer.id for layer in layers if not layer.filled]
    if lazy:
        raise InternalError(f"layers {', '.join(lazy)} are used before they are filled")


def _merge_remote(connection: sqlite3.Connection, id: str, new: RemoteBlob) -> None:
    """The newest place was reachable a moment ago: it comes first. A layer that was made here needs none."""
    layer = rows.find(connection, id)
    old = layer.remote if layer is not None else None
    if layer is not None and layer.filled and old is None:
        return
    if old is not None and old.digest == new.digest:
        new = replace(new, origins=tuple(dict.fromkeys(new.origins + old.origins))[: origins.MOST])
    connection.execute(
        "UPDATE layers SET remote = ?, remote_digest = ? WHERE id = ?", (rows.dump_remote(new), new.digest, id)
    )
