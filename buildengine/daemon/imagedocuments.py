"""The documents of an image: its indexes, manifests and configs, without what its layers hold.

Facts: BuildKit solver/llbsolver/history.go (migrateBlobV2): as much of a build's result stays as long as its record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from buildengine.digest import Digest
from buildengine.history import Blob
from cache.store import ContentStore


def described(descriptor: Mapping[str, Any]) -> Blob:
    """What an OCI descriptor describes."""
    return Blob(
        media_type=descriptor["mediaType"],
        digest=Digest(descriptor["digest"]),
        size=descriptor["size"],
        annotations=descriptor.get("annotations") or {},
    )


def documents(store: ContentStore, image: Blob) -> Iterator[tuple[bytes, str]]:
    """Content and media type of each, those of `image`, an index or a manifest, first. Raises StoreError for one that
    is not there."""
    data = _read(store, image)
    yield data, image.media_type
    document = json.loads(data)
    for entry in document.get("manifests", ()):
        yield from documents(store, described(entry))
    if "config" in document:
        config = described(document["config"])
        yield _read(store, config), config.media_type


def _read(store: ContentStore, blob: Blob) -> bytes:
    with store.open(blob.digest, pin=False) as stream:
        return stream.read()
