"""The key graph and what was stored under its keys: `solver.vertex.CacheStore`, less the results themselves.

A link says: with op `op` and output `output`, input number `index` under `selector`, holding the key `input`,
leads to the key `target`. A content key leads there whatever the selector, which is part of what it digests.

New links stay in memory, visible to queries, until a record is saved that they lead to: what leads nowhere is
never written. A new key's id is a digest of how it was reached, so two processes that reach it at the same time
agree on it, and on its lock.

Reads are answered by the database at once. Everything but `save` runs on the event loop's thread.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from blake3 import blake3

from buildengine.tracepoints import reach
from buildengine.values import dataclass
from cache import layerrows
from cache.db import Database
from cache.durability import Durability
from cache.locks import Locks

_K = TypeVar("_K")
_V = TypeVar("_V")

_CONTENT = "content:"  # solver.cachekey.CONTENT_PREFIX; the contract test of the stores compares
_SCHEME = b"pybuild.key.v1"


class InputKeys(Protocol):
    """`solver.vertex.InputKeys`, which this package does not import."""

    @property
    def selector(self) -> str: ...

    @property
    def keys(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stored result of `key`. `payload["stack"]` names its layers; the rest is the writer's own."""

    key: str
    id: str
    created: float
    payload: dict[str, Any]


_Link = tuple[str, str, int, int, str]
"""input, op, output, index, selector: in the order of the table"""

_TARGETS = "SELECT target FROM links WHERE input = ? AND op = ? AND output = ? AND number = ? AND selector = ?"


class Records:
    def __init__(self, db: Database, locks: Locks, durability: Durability) -> None:
        self._db = db
        self._locks = locks
        self._durability = durability
        self._unwritten: dict[_Link, set[str]] = {}
        self._leading_to: dict[str, set[_Link]] = {}  # the same, by target

    # --- the key graph ------------------------------------------------------------------------------------

    def targets(self, op: str, output: int, index: int, keys: InputKeys) -> frozenset[str]:
        """Where the links of one input lead."""
        return self._db.read(lambda c: self._targets(c, _links(op, output, index, keys)))

    def query(self, op: str, output: int, inputs: Sequence[InputKeys]) -> tuple[str, ...]:
        """The keys that (op, output) is known to reach from these inputs: those to which every input has a link."""
        if not inputs:
            return ()

        def read(connection: sqlite3.Connection) -> frozenset[str]:
            found = [self._targets(connection, _links(op, output, i, keys)) for i, keys in enumerate(inputs)]
            return frozenset.intersection(*found)

        return tuple(sorted(self._db.read(read)))

    def add_key(self, op: str, output: int, inputs: Sequence[InputKeys]) -> str:
        """The key of (op, output) over these inputs: a known one or a new one. Content keys alone decide, if any."""
        deciding = [_Deciding(keys) for keys in inputs]
        known = self.query(op, output, deciding)
        key = known[0] if known else _new_key(op, output, deciding)
        for index, keys in enumerate(inputs):
            for link in _links(op, output, index, keys):
                self._unwritten.setdefault(link, set()).add(key)
                self._leading_to.setdefault(key, set()).add(link)
        return key

    def contents(self, key: str, index: int) -> frozenset[str]:
        """The content keys of input `index` that lead to `key`, written or not."""
        query = "SELECT DISTINCT input FROM links WHERE target = ? AND number = ? AND input LIKE ? || '%'"
        written = self._db.read(lambda c: c.execute(query, (key, index, _CONTENT)).fetchall())
        fresh = [link[0] for link in self._leading_to.get(key, ()) if link[3] == index and link[0].startswith(_CONTENT)]
        return frozenset([*fresh, *[input for (input,) in written]])

    def _targets(self, connection: sqlite3.Connection, links: Sequence[_Link]) -> frozenset[str]:
        found: set[str] = set()
        for link in links:
            found |= self._unwritten.get(link, frozenset())
            found.update([target for (target,) in connection.execute(_TARGETS, link)])
        return frozenset(found)

    # --- records ------------------------------------------------------------------------------------------

    def records(self, key: str) -> tuple[Record, ...]:
        """Records of this key, newest first."""
        query = "SELECT id, created, payload FROM records WHERE key = ? ORDER BY created DESC, id"
        rows = self._db.read(lambda c: c.execute(query, (key,)).fetchall())
        return tuple(Record(key=key, id=id, created=created, payload=json.loads(text)) for id, created, text in rows)

    async def save(self, key: str, payload: Mapping[str, Any], *, created: float | None = None) -> None:
        """Remember a result, whose layers the caller holds; `created` None: it was made now. Raises LayerMissing."""
        path = self._path_to(key)
        text = json.dumps(payload, sort_keys=True)
        made = time.time() if created is None else created
        await self._db.write_soon(lambda c: self._save(c, key, text, made, tuple(payload.get("stack", ())), path))
        for link, target in path:
            self._forget(link, target)
        reach("record.committed")

    def used(self, id: str, key: str) -> None:
        """A record of `key` was a hit. How it was reached is remembered: found by content, then by definition too."""
        query = "UPDATE records SET last_used = ?, usage_count = usage_count + 1 WHERE id = ?"
        path = self._path_to(key)

        def write(connection: sqlite3.Connection) -> None:
            if connection.execute(query, (time.time(), id)).rowcount:
                _add_links(connection, path)

        self._db.write_nowait(write)
        for link, target in path:
            self._forget(link, target)

    def drop(self, id: str) -> None:
        """A record turned out to be worth nothing."""
        self._db.write_nowait(lambda c: _drop(c, id))

    def exclusive(self, key: str) -> AbstractAsyncContextManager[None]:
        """This process alone computes `key`."""
        return self._locks.exclusive(f"key {key}")

    def _path_to(self, key: str) -> list[tuple[_Link, str]]:
        """Every unwritten link from which `key` can be reached."""
        path: list[tuple[_Link, str]] = []
        waiting, seen = [key], {key}
        while waiting:
            target = waiting.pop()
            for link in self._leading_to.get(target, ()):
                path.append((link, target))
                if link[0] not in seen:
                    seen.add(link[0])
                    waiting.append(link[0])
        return path

    def _forget(self, link: _Link, target: str) -> None:
        _discard(self._unwritten, link, target)
        _discard(self._leading_to, target, link)

    def _save(
        self,
        connection: sqlite3.Connection,
        key: str,
        payload: str,
        created: float,
        stack: Sequence[str],
        path: Sequence[tuple[_Link, str]],
    ) -> None:
        layers = layerrows.find_all(connection, stack)
        _add_links(connection, path)
        reach("record.linked")
        for (id,) in connection.execute(
            "SELECT id FROM records WHERE key = ? AND payload = ?", (key, payload)
        ).fetchall():
            _drop(connection, id)
        id = secrets.token_hex(12)
        connection.execute(
            "INSERT INTO records (id, key, created, payload) VALUES (?, ?, ?, ?)", (id, key, created, payload)
        )
        connection.executemany(
            "INSERT OR IGNORE INTO record_layers (record, layer) VALUES (?, ?)",
            [(id, layer) for layer in layerrows.tops(layers)],
        )
        self._durability.mark(connection, "record", id)


def _add_links(connection: sqlite3.Connection, path: Sequence[tuple[_Link, str]]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO links (input, op, output, number, selector, target) VALUES (?, ?, ?, ?, ?, ?)",
        [(*link, target) for link, target in path],
    )


def collect_links(connection: sqlite3.Connection) -> None:
    """Delete the links from which no record can be reached."""
    connection.execute(
        """WITH RECURSIVE useful (key) AS (
            SELECT DISTINCT key FROM records
            UNION SELECT links.input FROM links JOIN useful ON links.target = useful.key)
        DELETE FROM links WHERE target NOT IN (SELECT key FROM useful)"""
    )


def _drop(connection: sqlite3.Connection, id: str) -> None:
    connection.execute("DELETE FROM record_layers WHERE record = ?", (id,))
    connection.execute("DELETE FROM records WHERE id = ?", (id,))


def _discard(index: dict[_K, set[_V]], key: _K, value: _V) -> None:
    rest = index.get(key)
    if rest is not None:
        rest.discard(value)
        if not rest:
            del index[key]


def _links(op: str, output: int, index: int, keys: InputKeys) -> list[_Link]:
    selector = keys.selector
    return [(key, op, output, index, "" if key.startswith(_CONTENT) else selector) for key in keys.keys]


class _Deciding:
    """The keys of an input that decide whether a target is known: content, where there is any."""

    __slots__ = ("keys", "selector")

    def __init__(self, keys: InputKeys) -> None:
        content = tuple(key for key in keys.keys if key.startswith(_CONTENT))
        self.keys = content or keys.keys
        self.selector = "" if content else keys.selector


def _new_key(op: str, output: int, inputs: Sequence[_Deciding]) -> str:
    """The smallest key stands for the input: whoever reaches the target from there finds the same id."""
    digest = blake3(_SCHEME)
    for text in (op, str(output), *(part for keys in inputs for part in (keys.selector, min(keys.keys, default="")))):
        raw = text.encode("utf-8", "surrogateescape")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest(20)
