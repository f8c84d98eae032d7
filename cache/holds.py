"""What this process needs and nobody may prune: counted holds of layers, and pins of what is in the making.

A hold is taken and given back by its user. A pin needs no user: whatever the process makes or finds (a blob
just downloaded, a layer just committed) is pinned at once, in the same transaction, until the activities that
were running then have ended; between two of those moments the maker hands it to whoever holds or references it.
Both are one row in the table `holds` under the lease, so they end with the process.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cache.db import Database

_INSERT = "INSERT OR IGNORE INTO holds (kind, id, lease) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM holds WHERE kind = ? AND id = ? AND lease = ?"


class Holds:
    """Counts on the event loop's thread; `pin` on any thread, inside a transaction (which excludes all others)."""

    def __init__(self, db: Database, lease: str) -> None:
        self._db = db
        self._lease = lease
        self._counts: Counter[str] = Counter()
        self._pins: dict[tuple[str, str], int] = {}
        self._activities: dict[int, int] = {}  # number -> moment of its start
        self._moments = itertools.count(1)  # `next` on it is atomic: pins are made in several threads

    def hold(self, layers: Iterable[str]) -> None:
        """Once more for each. Hold first, then look whether the layer exists: after that it stays."""
        layers = tuple(layers)
        new = {layer for layer in layers if layer not in self._counts}
        if new:
            self._db.write_nowait(lambda c: c.executemany(_INSERT, [("layer", id, self._lease) for id in new]))
        self._counts.update(layers)

    def release(self, layers: Iterable[str]) -> None:
        """Once less for each. The last release is also what `last used` and `usage count` tell."""
        self._counts.subtract(layers)
        ended = [layer for layer, count in self._counts.items() if count <= 0]
        for layer in ended:
            del self._counts[layer]
        if ended:
            self._db.write_nowait(lambda c: self._ended(c, ended))
        self.expire()

    def pin(self, connection: sqlite3.Connection, kind: str, id: str) -> None:
        """Make it the last statement of the transaction: memory does not roll back."""
        connection.execute(_INSERT, (kind, id, self._lease))
        self._pins[kind, id] = next(self._moments)

    def pinned(self, kind: str, id: str) -> bool:
        """Whether a pin is there and as young as it has to be, so that no transaction is needed."""
        return self._pins.get((kind, id), 0) > max(self._activities.values(), default=0)

    @contextmanager
    def activity(self) -> Iterator[None]:
        """The length of one build: what it makes and finds stays until its end."""
        number = next(self._moments)
        self._activities[number] = number
        try:
            yield
        finally:
            del self._activities[number]
            self.expire()

    def expire(self) -> None:
        """Drop the pins that no running activity can need."""
        if not self._pins or (self._counts and not self._activities):
            return  # a process that declares no activities keeps its pins while it holds anything
        oldest = min(self._activities.values(), default=next(self._moments))
        old = [key for key, moment in list(self._pins.items()) if moment < oldest]  # a copy: threads may pin meanwhile
        if old:
            self._db.write_nowait(lambda c: self._unpin(c, oldest))

    def _ended(self, connection: sqlite3.Connection, layers: list[str]) -> None:
        now = time.time()
        for layer in layers:
            if not self._activities:
                self._pins.pop(("layer", layer), None)  # handed over, and given back
            if ("layer", layer) not in self._pins:
                connection.execute(_DELETE, ("layer", layer, self._lease))
            connection.execute(
                "UPDATE layers SET last_used = ?, usage_count = usage_count + 1 WHERE id = ?", (now, layer)
            )

    def _unpin(self, connection: sqlite3.Connection, oldest: int) -> None:
        for kind, id in [key for key, moment in self._pins.items() if moment < oldest]:
            del self._pins[kind, id]
            if kind != "layer" or id not in self._counts:
                connection.execute(_DELETE, (kind, id, self._lease))
