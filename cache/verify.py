"""Is the store what its database says, byte for byte? Read-only, and safe while other processes use the store.

A finding counts only if it is still so when looked at again: what another process is making or deleting at this
moment is no damage.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from buildengine.builder import Damage
from buildengine.digest import Digest
from buildengine.errors import StoreError
from cache import layerrows, leases

if TYPE_CHECKING:
    from cache.opened import Cache

_READ = 1 << 20

# the layer's files, its overlay's work directory, and what a large COPY has noted of the files that it copied
_IN_A_LAYER = {"fs", "work", "sources"}

# what refers, and how it is called; to what, and where that is
_REFERENCES = (
    ("record", "record_layers", "record", "layer", "layers", "id"),
    ("layer", "layers", "id", "parent", "layers", "id"),
    ("layer", "bases", "layer", "base", "layers", "id"),
    ("layer", "layer_blobs", "layer", "digest", "blobs", "digest"),
    ("packed blob", "layer_blobs", "digest", "layer", "layers", "id"),
    ("image", "image_blobs", "image", "digest", "blobs", "digest"),
    ("image", "images", "digest", "digest", "image_blobs", "image"),
    ("served repository", "served_blobs", "repository", "digest", "blobs", "digest"),
    ("served repository", "served_manifests", "repository", "digest", "blobs", "digest"),
    ("served repository", "served_tags", "repository", "digest", "served_manifests", "digest"),
)


def verify(cache: Cache) -> list[Damage]:
    """All that is wrong. Reads every blob: give it a thread."""
    broken = list(_database(cache))
    return broken or [*_references(cache), *_blobs(cache), *_directories(cache), *_leftovers(cache)]


def _database(cache: Cache) -> Iterator[Damage]:
    try:
        for (text,) in cache.db.read(lambda c: c.execute("PRAGMA quick_check").fetchall()):
            if text != "ok":
                yield Damage(where="meta.db", problem=text)
    except StoreError as error:
        yield Damage(where="meta.db", problem=error.message)


def _references(cache: Cache) -> Iterator[Damage]:
    def read(connection: sqlite3.Connection) -> list[Damage]:
        found = []
        connection.execute("BEGIN")  # one picture for all of them
        for what, table, name, reference, target, key in _REFERENCES:
            query = f"""SELECT {name}, {reference} FROM {table}
                WHERE {reference} IS NOT NULL AND {reference} NOT IN (SELECT {key} FROM {target})"""
            for id, missing in connection.execute(query).fetchall():
                found.append(Damage(where=f"{what} {id}", problem=f"{missing}, its {reference}, is missing"))
        for (id,) in connection.execute("SELECT id FROM layers WHERE state = 'lazy' AND remote IS NULL").fetchall():
            found.append(Damage(where=f"layer {id}", problem="it has neither files nor a place to get them from"))
        connection.execute("COMMIT")
        return found

    yield from cache.db.read(read)


def _blobs(cache: Cache) -> Iterator[Damage]:
    for info in cache.store.list():
        problem = _blob_problem(cache, info.digest)
        if problem and _still(cache, "SELECT 1 FROM blobs WHERE digest = ?", info.digest):
            yield Damage(where=f"blob {info.digest}", problem=problem)


def _blob_problem(cache: Cache, digest: Digest) -> str:
    try:
        with cache.store.open(digest, pin=False) as stream:
            while stream.read(_READ):
                pass
    except (StoreError, OSError) as error:
        return str(error)
    return ""


def _directories(cache: Cache) -> Iterator[Damage]:
    layers = cache.root / "layers"
    for layer, state in cache.db.read(layerrows.everything):
        if state == layerrows.FILLED:
            here = set(os.listdir(layers / layer.id)) if (layers / layer.id).is_dir() else set()
            query = "SELECT 1 FROM layers WHERE id = ? AND state = 'filled'"
            if not {"fs"} <= here <= _IN_A_LAYER and _still(cache, query, layer.id):
                problem = f"its directory holds {', '.join(sorted(here)) or 'nothing'}, not fs"
                yield Damage(where=f"layer {layer.id}", problem=problem)
    for table, column, name in (("cachemounts", "id", "cachemounts"), ("trees", "key", "trees")):
        state = " AND state = 'ready'" if table == "cachemounts" else ""
        for (id,) in cache.db.read(_all(f"SELECT {column} FROM {table} WHERE 1 = 1{state}")):
            query = f"SELECT 1 FROM {table} WHERE {column} = ?"
            if not (cache.root / name / id).is_dir() and _still(cache, query, id):
                yield Damage(where=f"{name}/{id}", problem="its directory is missing")


def _leftovers(cache: Cache) -> Iterator[Damage]:
    """What no row names and no living process may be making."""
    living, _ = leases.owners(cache.root / "leases")
    queries = {
        "layers": "SELECT id FROM layers WHERE id = ?",
        "cachemounts": "SELECT id FROM cachemounts WHERE id = ?",
        "trees": "SELECT key FROM trees WHERE key = ?1 UNION SELECT id FROM layers WHERE id = ?1 AND state = 'active'",
        "ingest": "SELECT NULL WHERE ? IS NULL",
    }
    for folder, query in queries.items():
        for name in sorted(os.listdir(cache.root / folder)):
            owner = name.partition(".")[0]
            path = cache.root / folder / name
            if name != "empty" and owner not in living and not _still(cache, query, owner) and path.exists():
                yield Damage(where=f"{folder}/{name}", problem="nothing refers to it")
    for algorithm in sorted((cache.root / "blobs").iterdir()):
        names = set(os.listdir(algorithm))
        known = {info.digest.hex for info in cache.store.list()}
        for name in sorted(names - known):
            if _is_orphan(cache, Digest.of_hex(name, algorithm.name)) and (algorithm / name).exists():
                yield Damage(where=f"blob {algorithm.name}:{name}", problem="no row names it")


def _is_orphan(cache: Cache, digest: Digest) -> bool:
    """A writer renames inside its transaction: once we are in one, its blob has a row."""
    query = "SELECT 1 FROM blobs WHERE digest = ?"
    return cache.db.write_nowait(lambda c: c.execute(query, (digest,)).fetchone()) is None


def _still(cache: Cache, query: str, id: str) -> bool:
    return cache.db.read(lambda c: c.execute(query, (id,)).fetchone()) is not None


def _all(query: str) -> Callable[[sqlite3.Connection], list[tuple[str]]]:
    return lambda connection: connection.execute(query).fetchall()
