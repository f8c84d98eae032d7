"""Key ids where a path through the key graph begins: root keys and content keys.

All other ids are given by the store (`CacheStore.add_key`), and every path to them begins at one of these. So the
scheme's name stands in these alone: when the meaning of keys changes, so does the name, and nothing that was
stored under the old one is ever reached again.
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
