"""The tables of `meta.db`, and the number of the store's format.

Another format is refused, never guessed at: the store is a cache, making it anew is always possible.
"""

from __future__ import annotations

import sqlite3

FORMAT = 2

_STATEMENTS = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # What was committed since the last flush of the file system. AUTOINCREMENT: a number never comes again.
    """CREATE TABLE unsynced (
        number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, incarnation TEXT NOT NULL)""",
    # Who needs what. kind: layer, blob, cachemount.
    """CREATE TABLE holds (
        kind TEXT NOT NULL, id TEXT NOT NULL, lease TEXT NOT NULL, PRIMARY KEY (kind, id, lease)) WITHOUT ROWID""",
    "CREATE INDEX holds_lease ON holds (lease)",
    "CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
    # state: active (being written by `owner`), lazy (no directory yet), filled.
    """CREATE TABLE layers (
        id TEXT PRIMARY KEY, parent TEXT, kind TEXT NOT NULL, description TEXT NOT NULL, created REAL NOT NULL,
        state TEXT NOT NULL, owner TEXT, size INTEGER, diff_id TEXT, chain_id TEXT, remote_digest TEXT, remote TEXT,
        last_used REAL, usage_count INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    "CREATE INDEX layers_parent ON layers (parent)",
    "CREATE INDEX layers_chain ON layers (chain_id) WHERE chain_id IS NOT NULL",
    # The whole stack below a layer, where it is not the parent's own stack (a layer made on a merge).
    """CREATE TABLE bases (
        layer TEXT NOT NULL, position INTEGER NOT NULL, base TEXT NOT NULL,
        PRIMARY KEY (layer, position)) WITHOUT ROWID""",
    "CREATE INDEX bases_base ON bases (base)",
    """CREATE TABLE layer_blobs (
        layer TEXT NOT NULL, compression TEXT NOT NULL, level INTEGER, digest TEXT NOT NULL, size INTEGER NOT NULL,
        media_type TEXT NOT NULL, annotations TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX layer_blobs_layer ON layer_blobs (layer, digest, media_type)",
    "CREATE INDEX layer_blobs_digest ON layer_blobs (digest)",
    """CREATE TABLE links (
        input TEXT NOT NULL, op TEXT NOT NULL, output INTEGER NOT NULL, number INTEGER NOT NULL,
        selector TEXT NOT NULL, target TEXT NOT NULL,
        PRIMARY KEY (input, op, output, number, selector, target)) WITHOUT ROWID""",
    "CREATE INDEX links_target ON links (target)",
    """CREATE TABLE records (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, created REAL NOT NULL, payload TEXT NOT NULL,
        last_used REAL, usage_count INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    "CREATE INDEX records_key ON records (key, created)",
    """CREATE TABLE record_layers (
        record TEXT NOT NULL, layer TEXT NOT NULL, PRIMARY KEY (record, layer)) WITHOUT ROWID""",
    "CREATE INDEX record_layers_layer ON record_layers (layer)",
    # state: filling (its owner copies the base into it), ready. key NULL: nobody finds it any more.
    """CREATE TABLE cachemounts (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT, kind TEXT NOT NULL, description TEXT NOT NULL,
        state TEXT NOT NULL, owner TEXT, created REAL NOT NULL, last_used REAL,
        usage_count INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    "CREATE INDEX cachemounts_key ON cachemounts (key)",
    # name '' is a dangling image.
    """CREATE TABLE images (
        name TEXT NOT NULL, digest TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY (digest, name)) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX images_name ON images (name) WHERE name != ''",
    """CREATE TABLE image_blobs (
        image TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (image, digest)) WITHOUT ROWID""",
    "CREATE INDEX image_blobs_digest ON image_blobs (digest)",
    """CREATE TABLE image_chains (
        image TEXT NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (image, chain)) WITHOUT ROWID""",
    "CREATE INDEX image_chains_chain ON image_chains (chain)",
    # What the registry of our own holds (cache/served.py). A manifest's references are for recovery: they need not
    # be there for ever, since a client may delete a blob before the manifest.
    "CREATE TABLE served_blobs (repository TEXT, digest TEXT, PRIMARY KEY (repository, digest)) WITHOUT ROWID",
    "CREATE INDEX served_blobs_digest ON served_blobs (digest)",
    """CREATE TABLE served_manifests (
        repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, created REAL NOT NULL,
        subject TEXT, artifact_type TEXT NOT NULL, descriptor TEXT NOT NULL,
        PRIMARY KEY (repository, digest)) WITHOUT ROWID""",
    "CREATE INDEX served_manifests_digest ON served_manifests (digest)",
    "CREATE INDEX served_manifests_subject ON served_manifests (repository, subject) WHERE subject IS NOT NULL",
    """CREATE TABLE served_references (
        repository TEXT NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (repository, manifest, digest)) WITHOUT ROWID""",
    "CREATE INDEX served_references_digest ON served_references (digest)",
    """CREATE TABLE served_tags (
        repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (repository, tag)) WITHOUT ROWID""",
    "CREATE INDEX served_tags_digest ON served_tags (repository, digest)",
    # Full trees of the copying snapshotter that are ready: trees/<key>.
    "CREATE TABLE trees (key TEXT PRIMARY KEY, stack TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE content_digests (
        stack TEXT NOT NULL, selectors TEXT NOT NULL, layer TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (stack, selectors)) WITHOUT ROWID""",
    "CREATE TABLE file_digests (layer TEXT PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE local_indexes (key TEXT PRIMARY KEY, used REAL NOT NULL, data BLOB NOT NULL)",
)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database; inside a transaction."""
    for statement in _STATEMENTS:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={FORMAT}")


def version(connection: sqlite3.Connection) -> int:
    """The format of this database; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
