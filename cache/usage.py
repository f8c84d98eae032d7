"""What the store holds, as `du` lists it: one `UsageInfo` for each layer, cache mount and git repository.

A layer counts as in use when a live process holds it, or something made on it. It is shared when an image of the
local store has it. Its size is that of its files and of the blobs it is packed in; it is measured once.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from buildengine.builder import UsageInfo
from cache import filters as filter_language
from cache import layerrows, repositories
from cache.layerrows import Layer
from cache.treesize import tree_size

if TYPE_CHECKING:
    from cache.opened import Cache


def disk_usage(cache: Cache, filters: Sequence[str] = ()) -> list[UsageInfo]:
    """Everything that the filters select, layers first, the oldest first. Blocks while new layers are measured."""
    matches = filter_language.parse(filters, now=time.time())
    measure(cache)
    return [info for info in cache.db.read(listing) + directories(cache) if matches(info)]


def directories(cache: Cache, sizes: Mapping[str, int] | None = None) -> list[UsageInfo]:
    """What is not layers: cache mounts and git repositories."""
    return cachemounts(cache, sizes) + repositories.listed(cache.root, cache.locks)


def measure(cache: Cache) -> None:
    """Find out the sizes of layers that nobody has measured yet."""
    query = "SELECT id FROM layers WHERE state = 'filled' AND size IS NULL"
    unknown = cache.db.read(lambda c: [id for (id,) in c.execute(query)])
    sizes = [(tree_size(cache.root / "layers" / id / "fs"), id) for id in unknown]
    if sizes:
        cache.db.write_nowait(lambda c: c.executemany("UPDATE layers SET size = ? WHERE id = ?", sizes).rowcount)


def listing(connection: sqlite3.Connection) -> list[UsageInfo]:
    """The layers. Inside one transaction or not: it is a picture of a moment."""
    rows = layerrows.everything(connection)
    layers = {layer.id: layer for layer, _ in rows}
    active = {layer.id for layer, state in rows if state == layerrows.ACTIVE}
    bases = _bases(connection)
    held = {id for (id,) in connection.execute("SELECT DISTINCT id FROM holds WHERE kind = 'layer'")}
    in_use = _with_parents(held | active, layers, bases)
    chains = {chain for (chain,) in connection.execute("SELECT DISTINCT chain FROM image_chains")}
    of_images = [id for id, layer in layers.items() if layer.chain_id is not None and layer.chain_id in chains]
    shared = _with_parents(of_images, layers, bases)
    blobs = dict(
        connection.execute(
            """SELECT layer, sum(size) FROM (
                SELECT layer, blobs.digest, blobs.size FROM layer_blobs JOIN blobs ON blobs.digest = layer_blobs.digest
                UNION SELECT id, digest, blobs.size FROM layers JOIN blobs ON digest = remote_digest) GROUP BY layer"""
        ).fetchall()
    )
    return [
        UsageInfo(
            id=layer.id,
            parents=tuple(bases.get(layer.id, [layer.parent] if layer.parent else [])),
            kind=layer.kind,
            description=layer.description,
            size=0 if layer.id in active else (layer.size or 0) + int(blobs.get(layer.id, 0)),
            mutable=layer.id in active,
            in_use=layer.id in in_use,
            shared=layer.id in shared,
            created=layer.created,
            last_used=layer.last_used,
            usage_count=layer.usage_count,
        )
        for layer in layers.values()
    ]


def cachemounts(cache: Cache, sizes: Mapping[str, int] | None = None) -> list[UsageInfo]:
    """The cache mounts. Their sizes change all the time: measured now, unless `sizes` has them."""
    sizes = sizes or {}
    query = """SELECT id, kind, description, created, last_used, usage_count, state = 'filling' OR EXISTS
        (SELECT 1 FROM holds WHERE holds.kind = 'cachemount' AND holds.id = cachemounts.id)
        FROM cachemounts ORDER BY created, id"""
    rows = cache.db.read(lambda c: c.execute(query).fetchall())
    return [
        UsageInfo(
            id=id,
            kind=kind,
            description=description,
            size=sizes[id] if id in sizes else tree_size(cache.root / "cachemounts" / id),
            mutable=True,
            in_use=bool(in_use),
            created=created,
            last_used=last_used,
            usage_count=usage_count,
        )
        for id, kind, description, created, last_used, usage_count, in_use in rows
    ]


def _bases(connection: sqlite3.Connection) -> dict[str, list[str]]:
    bases: dict[str, list[str]] = {}
    for layer, base in connection.execute("SELECT layer, base FROM bases ORDER BY layer, position"):
        bases.setdefault(layer, []).append(base)
    return bases


def _with_parents(ids: Iterable[str], layers: dict[str, Layer], bases: dict[str, list[str]]) -> set[str]:
    """These and everything they were made on."""
    found: set[str] = set()
    waiting = [id for id in ids if id in layers]
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            parent = layers[id].parent
            waiting += [base for base in (*bases.get(id, ()), parent) if base is not None and base in layers]
    return found
