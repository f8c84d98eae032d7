"""Key ids where a path through the key graph begins: root keys and content keys. And what keys are called elsewhere.

All other ids are given by the store (`CacheStore.add_key`), and every path to them begins at one of these. So the
scheme's name stands in these alone: when the meaning of keys changes, so does the name, and nothing that was
stored under the old one is ever reached again.

A cache that is exported cannot have the ids of a store: there a key is a *name* and the links that lead to it. The
names are digests of the ids of this module, so they too change with the scheme. A `CacheSource` has ids of its own
(`imported_key`), which never enter a store.
"""

from __future__ import annotations

from buildengine.digest import Digest

SCHEME = "pybuild.1"

CONTENT_PREFIX = "content:"
"""How the store tells a content key from a key of a definition."""

EMPTY_CONTENT = f"{CONTENT_PREFIX}{SCHEME}:empty"
"""The content key of the empty tree (a result that is None): there is nothing to read."""


def root_key(op: Digest, output: int) -> str:
    """The key of an output of an op without inputs."""
    return f"root:{SCHEME}:{op}@{output}"


def content_key(digest: Digest) -> str:
    """The key of an input by what it holds."""
    return f"{CONTENT_PREFIX}{SCHEME}:{digest}"


def is_content_key(key: str) -> bool:
    return key.startswith(CONTENT_PREFIX)


def name_of(key: str) -> Digest:
    """What a root key or a content key is called in a cache that is exported. Of `root_key(op, output)` it is also the
    name of every key that (op, output) reaches over inputs."""
    return Digest.sha256(key.encode())


def selector_name(selector: str) -> str:
    """What a selector is called there: it may hold names of files, which are nobody else's business."""
    return str(Digest.sha256(selector.encode("utf-8", "surrogateescape"))) if selector else ""


_IMPORTED_PREFIX = "imported:"


def imported_key(source: str, number: int) -> str:
    """A key that only the source `source` knows."""
    return f"{_IMPORTED_PREFIX}{source}:{number}"


def imported_number(source: str, key: str) -> int | None:
    """What `imported_key` made the key of; None for a key of another source."""
    prefix = f"{_IMPORTED_PREFIX}{source}:"
    return int(key.removeprefix(prefix)) if key.startswith(prefix) else None


def is_imported(key: str) -> bool:
    return key.startswith(_IMPORTED_PREFIX)
