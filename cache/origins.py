"""Where the blobs of layers are besides here: repositories of registries, `host/path`, learnt by pulls and pushes.

A layer that came from a registry has them in its remote blob; a blob that was made here keeps them as containerd's
labels do, `containerd.io/distribution.source.<host>: <path>,<path>`. All functions run inside the caller's
transaction.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

from buildengine.digest import Digest
from cache import layerrows as rows

_SOURCE = "containerd.io/distribution.source."
MOST = 10  # kept of one blob: what is older is more likely gone


def of(connection: sqlite3.Connection, digest: Digest) -> tuple[str, ...]:
    """The repositories that are known to hold the blob: whence it came, then those it was pushed to."""
    found: list[str] = []
    for (remote,) in connection.execute("SELECT remote FROM layers WHERE remote_digest = ?", (digest,)):
        found += rows.load_remote(remote).origins
    for (text,) in connection.execute("SELECT annotations FROM layer_blobs WHERE digest = ?", (digest,)):
        for label, paths in json.loads(text).items():
            if label.startswith(_SOURCE):
                found += [f"{label.removeprefix(_SOURCE)}/{path}" for path in paths.split(",")]
    return tuple(dict.fromkeys(found))


def add(connection: sqlite3.Connection, digest: Digest, origin: str) -> None:
    """Remember one more; a blob that is no layer's is not worth a note."""
    layers = "SELECT id, remote FROM layers WHERE remote_digest = ?"
    for id, text in connection.execute(layers, (digest,)).fetchall():
        remote = rows.load_remote(text)
        if origin not in remote.origins:  # last: whence it came is asked first when it has to be fetched
            first, others = remote.origins[:1], remote.origins[1:]
            kept = replace(remote, origins=(*first, *(*others, origin)[-(MOST - len(first)) :]))
            connection.execute("UPDATE layers SET remote = ? WHERE id = ?", (rows.dump_remote(kept), id))
    host, _, path = origin.partition("/")
    blobs = "SELECT rowid, annotations FROM layer_blobs WHERE digest = ?"
    for rowid, text in connection.execute(blobs, (digest,)).fetchall():
        annotations = json.loads(text)
        paths = [known for known in annotations.get(_SOURCE + host, "").split(",") if known and known != path]
        annotations[_SOURCE + host] = ",".join([path, *paths][:MOST])
        connection.execute("UPDATE layer_blobs SET annotations = ? WHERE rowid = ?", (json.dumps(annotations), rowid))


def layer(connection: sqlite3.Connection, digest: Digest) -> rows.Layer | None:
    """A layer that came, or can be had, as this blob."""
    query = "SELECT id FROM layers WHERE remote_digest = ? AND state != 'active' ORDER BY created LIMIT 1"
    found = connection.execute(query, (digest,)).fetchone()
    return None if found is None else rows.find(connection, found[0])
