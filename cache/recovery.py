"""What is done when a store is opened: sweep what dead processes left, and after a power cut what may be torn.

Both run under the opening lock. Sweeping deletes rows that dead leases own, and then everything on disk that has
no row; it never touches what a live process may be making, since that has a row with a live owner, a file name
with a live owner, or a lock. Nothing is swept when every process ended well: then it costs one directory listing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection
from pathlib import Path

from buildengine.digest import Digest
from cache import images, layerrows, repositories
from cache.blobs import remove_orphan
from cache.db import Database
from cache.locks import Locks
from cache.removal import remove_tree


def sweep(root: Path, db: Database, locks: Locks, living: Collection[str]) -> None:
    """Take away everything that belongs to no process of `living` and that no row names."""
    on_disk = {name: _names(root / name) for name in ("layers", "trees", "cachemounts", "ingest")}
    db.write_nowait(lambda c: release(c, [owner for owner in _owners(c) if owner not in living]))
    layers = db.read(lambda c: dict(c.execute("SELECT id, state FROM layers").fetchall()))
    mounts = db.read(lambda c: {id for (id,) in c.execute("SELECT id FROM cachemounts")})
    trees = db.read(lambda c: {key for (key,) in c.execute("SELECT key FROM trees")})
    for id in on_disk["layers"]:
        if id not in layers:
            remove_tree(root / "layers" / id)
        elif layers[id] == layerrows.LAZY:
            _remove_unlocked(root / "layers" / id, db, locks)
    for id in on_disk["cachemounts"] - mounts:
        remove_tree(root / "cachemounts" / id)
    for name in on_disk["trees"] - trees - {"empty"}:
        if name.partition(".")[0] not in living and layers.get(name.partition(".")[0]) != layerrows.ACTIVE:
            remove_any(root / "trees" / name)
    for name in on_disk["ingest"]:
        if name.partition(".")[0] not in living:
            (root / "ingest" / name).unlink(missing_ok=True)
    _sweep_blobs(root, db)
    repositories.sweep(root, locks)
    locks.sweep()


def release(connection: sqlite3.Connection, owners: Collection[str]) -> None:
    """Delete the rows of these leases: their holds, and what they were making."""
    for owner in owners:
        connection.execute("DELETE FROM holds WHERE lease = ?", (owner,))
        rows = connection.execute("SELECT id FROM layers WHERE state = 'active' AND owner = ?", (owner,)).fetchall()
        for (id,) in rows:
            layerrows.delete(connection, id)
        connection.execute("DELETE FROM cachemounts WHERE state = 'filling' AND owner = ?", (owner,))


def owned(connection: sqlite3.Connection, owner: str) -> list[str]:
    """The layers that a lease is making."""
    query = "SELECT id FROM layers WHERE state = 'active' AND owner = ?"
    return [id for (id,) in connection.execute(query, (owner,))]


def recover(root: Path, db: Database, incarnation: str) -> None:
    """After another incarnation of the file system: drop what was never flushed, and rows whose files are gone."""
    for name in _names(root / "trees") - {"empty"}:
        remove_any(root / "trees" / name)
    doomed = db.write_nowait(lambda c: _drop_torn(c, root, incarnation))
    for directory in doomed:
        remove_tree(directory)


def _drop_torn(connection: sqlite3.Connection, root: Path, incarnation: str) -> list[Path]:
    torn: dict[str, set[str]] = {kind: set() for kind in ("record", "image", "layer", "blob", "cachemount", "served")}
    for kind, id in connection.execute("SELECT kind, id FROM unsynced WHERE incarnation != ?", (incarnation,)):
        torn[kind].add(id)
    connection.execute("DELETE FROM trees")
    _add_missing(connection, root, torn)
    for id in torn["record"]:
        connection.execute("DELETE FROM records WHERE id = ?", (id,))
        connection.execute("DELETE FROM record_layers WHERE record = ?", (id,))
    for digest in torn["image"]:
        images.drop(connection, digest)
    doomed = [root / "cachemounts" / id for id in torn["cachemount"]]
    connection.executemany("DELETE FROM cachemounts WHERE id = ?", [(id,) for id in torn["cachemount"]])
    for digest in torn["blob"]:
        connection.execute("DELETE FROM blobs WHERE digest = ?", (digest,))
        connection.execute("DELETE FROM layer_blobs WHERE digest = ?", (digest,))
    if torn["blob"]:
        from cache import served

        served.drop_torn(connection, torn["blob"])
    doomed += [root / "layers" / id for id in _drop_layers(connection, torn["layer"])]
    connection.execute("DELETE FROM unsynced WHERE incarnation != ?", (incarnation,))
    return doomed


def _add_missing(connection: sqlite3.Connection, root: Path, torn: dict[str, set[str]]) -> None:
    """A deletion may have reached the disk before its transaction did."""
    for digest, size in connection.execute("SELECT digest, size FROM blobs").fetchall():
        path = root / "blobs" / Digest(digest).algorithm / Digest(digest).hex
        if not path.is_file() or path.stat().st_size != size:
            torn["blob"].add(digest)
    for (id,) in connection.execute("SELECT id FROM layers WHERE state = 'filled'").fetchall():
        if not (root / "layers" / id / "fs").is_dir():
            torn["layer"].add(id)
    for (id,) in connection.execute("SELECT id FROM cachemounts").fetchall():
        if not (root / "cachemounts" / id).is_dir():
            torn["cachemount"].add(id)
    lost = "SELECT DISTINCT image FROM image_blobs WHERE digest NOT IN (SELECT digest FROM blobs)"
    torn["image"] |= {image for (image,) in connection.execute(lost)}
    for digest in torn["blob"]:
        torn["image"] |= {i for (i,) in connection.execute("SELECT image FROM image_blobs WHERE digest = ?", (digest,))}


def _drop_layers(connection: sqlite3.Connection, torn: Collection[str]) -> list[str]:
    """Torn layers and all that was made on them; what can be had from a registry again is lazy instead."""
    doomed, waiting = [], list(torn)
    while waiting:
        id = waiting.pop()
        row = connection.execute("SELECT remote FROM layers WHERE id = ?", (id,)).fetchone()
        if row is None:
            continue
        doomed.append(id)
        if row[0] is not None:
            connection.execute("UPDATE layers SET state = 'lazy', size = NULL WHERE id = ?", (id,))
            continue
        query = "SELECT id FROM layers WHERE parent = ?1 UNION SELECT layer FROM bases WHERE base = ?1"
        waiting += [child for (child,) in connection.execute(query, (id,))]
        layerrows.delete(connection, id)
    return doomed


def _sweep_blobs(root: Path, db: Database) -> None:
    for algorithm in sorted((root / "blobs").iterdir()):
        names = _names(algorithm)
        known = db.read(lambda c: {Digest(digest).hex for (digest,) in c.execute("SELECT digest FROM blobs")})
        for name in names - known:
            remove_orphan(db, root / "blobs", Digest.of_hex(name, algorithm.name))


def _remove_unlocked(directory: Path, db: Database, locks: Locks) -> None:
    """What a killed process unpacked of a lazy layer, unless another is at it, or has just finished."""
    lock = locks.try_lock(f"layer {directory.name}")
    if lock is not None:
        query = "SELECT 1 FROM layers WHERE id = ? AND state = 'lazy'"
        if db.read(lambda c: c.execute(query, (directory.name,)).fetchone()) is not None:
            remove_tree(directory)
        lock.release()


def _owners(connection: sqlite3.Connection) -> list[str]:
    query = """SELECT lease FROM holds UNION SELECT owner FROM layers WHERE owner IS NOT NULL AND state = 'active'
        UNION SELECT owner FROM cachemounts WHERE owner IS NOT NULL"""
    return [owner for (owner,) in connection.execute(query)]


def _names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


def remove_any(path: Path) -> None:
    """A tree, or a file beside it."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
