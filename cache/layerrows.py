"""The rows of layers, and the values that callers see of them. All functions run inside the caller's transaction.

A layer belongs on the stack it was made on. Usually that is its parent on the parent's own stack; a layer made
on a merge has its whole stack in the table `bases`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from functools import lru_cache

from buildengine.digest import Digest
from buildengine.errors import StoreError
from buildengine.values import dataclass

ACTIVE, LAZY, FILLED = "active", "lazy", "filled"
_COLUMNS = "id, parent, kind, description, created, state, size, diff_id, chain_id, remote, last_used, usage_count"
_Text = str | None
_Row = tuple[str, _Text, str, str, float, str, int | None, _Text, _Text, _Text, float | None, int]  # of _COLUMNS


class LayerMissing(StoreError):
    """A layer is not (or no more) in the store: a record that names it is worth nothing."""

    def __init__(self, id: str) -> None:
        super().__init__(f"layer {id} is not in the store", hint="build again; it may have been pruned meanwhile")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBlob:
    """Where a layer can be had from: `origins` are `host/repository`, the best first.

    `windows` says that its archive is laid out as those of Windows images are.
    """

    digest: Digest
    size: int
    media_type: str
    origins: tuple[str, ...] = ()
    windows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBlob:
    """One way in which a layer is packed, as a blob in the store."""

    compression: str
    digest: Digest
    size: int
    media_type: str
    level: int | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """`filled`: its directory is whole. A layer that is not has a `remote`. `size` None: not measured yet."""

    id: str
    parent: str | None
    kind: str
    description: str
    created: float
    size: int | None = None
    diff_id: Digest | None = None
    chain_id: Digest | None = None
    remote: RemoteBlob | None = None
    filled: bool = False
    last_used: float | None = None
    usage_count: int = 0


def find(connection: sqlite3.Connection, id: str) -> Layer | None:
    """A layer that is committed or lazy; what is being written is not there yet."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM layers WHERE id = ? AND state != 'active'", (id,)).fetchone()
    return None if row is None else layer_of(row)


def find_all(connection: sqlite3.Connection, stack: Sequence[str]) -> list[Layer]:
    """The layers of a stack, in its order. Raises LayerMissing."""
    found: dict[str, Layer] = {}
    distinct = list(dict.fromkeys(stack))
    for start in range(0, len(distinct), 500):
        chunk = distinct[start : start + 500]
        marks = ",".join("?" * len(chunk))
        query = f"SELECT {_COLUMNS} FROM layers WHERE id IN ({marks}) AND state != 'active'"
        found |= {row[0]: layer_of(row) for row in connection.execute(query, chunk)}
    for id in distinct:
        if id not in found:
            raise LayerMissing(id)
    return [found[id] for id in stack]


def everything(connection: sqlite3.Connection) -> list[tuple[Layer, str]]:
    """All layers with their states."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM layers ORDER BY created, id").fetchall()
    return [(layer_of(row), row[5]) for row in rows]


@lru_cache(maxsize=2048)  # the same rows are read for every step of a build: 1 us instead of 10
def layer_of(row: _Row) -> Layer:
    id, parent, kind, description, created, state, size, diff_id, chain_id, remote, last_used, usage_count = row
    return Layer(
        id=id,
        parent=parent,
        kind=kind,
        description=description,
        created=created,
        size=size,
        diff_id=None if diff_id is None else Digest(diff_id),
        chain_id=None if chain_id is None else Digest(chain_id),
        remote=None if remote is None else load_remote(remote),
        filled=state == FILLED,
        last_used=last_used,
        usage_count=usage_count,
    )


def load_remote(text: str) -> RemoteBlob:
    doc = json.loads(text)
    return RemoteBlob(
        digest=Digest(doc["digest"]),
        size=doc["size"],
        media_type=doc["mediaType"],
        origins=tuple(doc["origins"]),
        windows=doc.get("windows", False),
    )


def dump_remote(remote: RemoteBlob) -> str:
    document = {"digest": remote.digest, "size": remote.size, "mediaType": remote.media_type, "origins": remote.origins}
    return json.dumps({**document, "windows": True} if remote.windows else document)


def insert(connection: sqlite3.Connection, layer: Layer, stack: Sequence[Layer], *, state: str, owner: str) -> None:
    """A new row, on top of `stack`."""
    values = {
        "id": layer.id,
        "parent": layer.parent,
        "kind": layer.kind,
        "description": layer.description,
        "created": layer.created,
        "state": state,
        "owner": owner,
        "diff_id": layer.diff_id,
        "chain_id": layer.chain_id,
        "remote_digest": None if layer.remote is None else layer.remote.digest,
        "remote": None if layer.remote is None else dump_remote(layer.remote),
    }
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT INTO layers ({', '.join(values)}) VALUES ({marks})", values)
    if not _is_chain(connection, stack):
        rows = [(layer.id, position, base.id) for position, base in enumerate(stack)]
        connection.executemany("INSERT INTO bases (layer, position, base) VALUES (?, ?, ?)", rows)


def bases_of(connection: sqlite3.Connection, id: str) -> tuple[str, ...]:
    rows = connection.execute("SELECT base FROM bases WHERE layer = ? ORDER BY position", (id,))
    return tuple(base for (base,) in rows)


def own_stacks(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What each layer was made on, with itself on top; and the same of those below it. Raises LayerMissing."""
    found: dict[str, tuple[str, ...]] = {}
    waiting = list(ids)
    while waiting:
        id = waiting[-1]
        (layer,) = find_all(connection, (id,))
        below = bases_of(connection, id)
        if not below and layer.parent is not None:
            if layer.parent not in found:
                waiting.append(layer.parent)
                continue
            below = found[layer.parent]
        found[waiting.pop()] = (*below, id)
    return found


def is_needed(connection: sqlite3.Connection, id: str) -> bool:
    """Whether another layer was made on it."""
    query = "SELECT EXISTS (SELECT 1 FROM layers WHERE parent = ?) OR EXISTS (SELECT 1 FROM bases WHERE base = ?)"
    return bool(connection.execute(query, (id, id)).fetchone()[0])


def strays(connection: sqlite3.Connection, stack: Sequence[Layer]) -> set[str]:
    """The layers of a stack that lie on others than they were made on. What was made here on nothing fits anywhere."""
    ids = tuple(layer.id for layer in stack)
    on_merges = bool(connection.execute("SELECT EXISTS (SELECT 1 FROM bases)").fetchone()[0])
    found, at_home = set(), True
    for position, layer in enumerate(stack):
        bases = bases_of(connection, layer.id) if on_merges else ()
        on_the_one_below = at_home and layer.parent == (ids[position - 1] if position else None)
        at_home = bases == ids[:position] if bases else on_the_one_below
        if not at_home and (layer.parent is not None or layer.remote is not None):
            found.add(layer.id)
    return found


def tops(stack: Sequence[Layer]) -> list[str]:
    """The layers of a stack on which no other of it was made: while these are there, all are."""
    return [
        layer.id
        for position, layer in enumerate(stack)
        if position + 1 == len(stack) or stack[position + 1].parent != layer.id
    ]


def delete(connection: sqlite3.Connection, id: str) -> None:
    """The row and all that hangs on it: its packings, and the records whose result it was part of."""
    records = "SELECT record FROM record_layers WHERE layer = ?"
    connection.execute(f"DELETE FROM records WHERE id IN ({records})", (id,))
    connection.execute(f"DELETE FROM record_layers WHERE record IN ({records})", (id,))
    for table in ("layers WHERE id", "bases WHERE layer", "layer_blobs WHERE layer", "file_digests WHERE layer"):
        connection.execute(f"DELETE FROM {table} = ?", (id,))
    connection.execute("DELETE FROM content_digests WHERE layer = ?", (id,))
    connection.execute("DELETE FROM unsynced WHERE kind = 'layer' AND id = ?", (id,))


def _is_chain(connection: sqlite3.Connection, stack: Sequence[Layer]) -> bool:
    """Whether the stack is that of its topmost layer: then nothing has to be written down."""
    ids = tuple(layer.id for layer in stack)
    on_merges = bool(connection.execute("SELECT EXISTS (SELECT 1 FROM bases)").fetchone()[0])
    for position in range(len(stack) - 1, -1, -1):
        bases = bases_of(connection, ids[position]) if on_merges else ()
        if bases:
            return bases == ids[:position]
        if stack[position].parent != (ids[position - 1] if position else None):
            return False
    return True
