"""The digest of an op for its cache key: blake3 over canonical JSON, under a scheme name.

The scheme is part of what is hashed: when the meaning of a key changes, the name changes, and the old records
are never found again. Keys that interoperate with BuildKit's would be another scheme beside this one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from buildengine.digest import Digest

SCHEME = "pybuild.op.v1"


_names: dict[type, tuple[str, ...]] = {}


def _field_names(kind: type) -> tuple[str, ...]:
    if kind not in _names:
        _names[kind] = tuple([field.name for field in dataclasses.fields(kind)])
    return _names[kind]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    fields = {name: _plain(getattr(value, name)) for name in _field_names(type(value))}
    return {"type": type(value).__name__, **fields}


def key_digest(kind: str, *parts: Any) -> Digest:
    """The digest of `parts` (frozen dataclasses, tuples, mappings, strings, numbers) as an op of this kind."""
    document = json.dumps([SCHEME, kind, _plain(parts)], sort_keys=True, separators=(",", ":"))
    return Digest.of_hex(blake3(document.encode("utf-8", "surrogateescape")).hexdigest(), "blake3")
