"""Importing a cache from a registry: what a reference names is an image with its cache inside, or a cache by itself.

    an image, or an index of images    the records in the config of each, on the layers of that image
    a manifest with a cache config     as BuildKit pushes a cache since v0.21
    an index with a cache config       the same of before; its entries are the layers

Documents are read here, layers are not. Facts: BuildKit cache/remotecache/import.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.limits import HASH, offload
from buildengine.reference import Reference
from cache.layers import RemoteBlob
from worker.layers.compression import compression_of
from worker.oci.types import Descriptor, ImageConfig, Index, Manifest
from worker.registry.puller import RemoteTree
from worker.remotecache import document
from worker.remotecache.imported import ImportedConfig, ImportedLayer, KeyIndex

_DIFF_ID = "containerd.io/uncompressed"
_CREATED = "buildkit/createdat"
_DESCRIPTION = "buildkit/description"


class Documents(Protocol):
    """`worker.images.Images`, as far as it is needed here."""

    async def ask_all(self, reference: Reference) -> RemoteTree: ...

    async def fetch_config(self, reference: Reference, descriptor: Descriptor) -> bytes: ...


async def read(documents: Documents, reference: Reference) -> tuple[RemoteTree, KeyIndex]:
    """The caches of all platforms as one, and what they were read from. Raises SourceError."""
    tree = await documents.ask_all(reference)
    root = tree.documents[0]
    offered = root.manifests if isinstance(root, Index) else root.layers
    own = [each for each in offered if each.media_type == document.MEDIA_TYPE] if isinstance(root, Index) else []
    if isinstance(root, Manifest) and root.config.media_type == document.MEDIA_TYPE:
        own = [root.config]
    raw = await documents.fetch_config(reference, own[-1]) if own else None

    def parse() -> KeyIndex:  # of a large one a second
        if raw is None:
            return KeyIndex(tuple(_inline_all(tree, reference)))
        config = document.parse(raw, what=f"cache of {reference.familiar}")
        return KeyIndex((_separate(config, offered, reference),))

    return tree, await offload(parse, limiter=HASH)


def _separate(config: document.CacheConfig, offered: Sequence[Descriptor], reference: Reference) -> ImportedConfig:
    known = {descriptor.digest: layer for descriptor in offered if (layer := _annotated(descriptor, reference))}
    return ImportedConfig(config=config, layers=tuple(known.get(layer.blob) for layer in config.layers))


def _annotated(descriptor: Descriptor, reference: Reference) -> ImportedLayer | None:
    """A layer that says itself what it unpacks to; None for what does not, or is no layer."""
    try:
        diff_id = Digest.parse(descriptor.annotations.get(_DIFF_ID, ""))
    except UserError:
        return None
    return _layer(
        descriptor,
        diff_id,
        reference,
        created=descriptor.annotations.get(_CREATED, ""),
        description=descriptor.annotations.get(_DESCRIPTION, ""),
    )


def _inline_all(tree: RemoteTree, reference: Reference) -> Iterator[ImportedConfig]:
    for manifest in tree.manifests:
        image = tree.configs.get(manifest.digest)
        if image is None or len(image.diff_ids) != len(manifest.layers):
            continue
        what = f"cache of {reference.familiar}"
        config = document.parse_inline(image.document, [layer.digest for layer in manifest.layers], what=what)
        if config is not None:
            yield ImportedConfig(config=config, layers=tuple(_layers_of(manifest, image, reference)))


def _layers_of(manifest: Manifest, image: ImageConfig, reference: Reference) -> Iterator[ImportedLayer | None]:
    """The layers of an image, with what its history says of each."""
    history = image.document.get("history") or []
    told = [entry for entry in history if not entry.get("empty_layer")]
    told += [{}] * (len(manifest.layers) - len(told))
    for descriptor, diff_id, entry in zip(manifest.layers, image.diff_ids, told, strict=False):
        yield _layer(
            descriptor,
            diff_id,
            reference,
            created=str(entry.get("created") or ""),
            description=str(entry.get("created_by") or ""),
            windows=image.platform.os == "windows",
        )


def _layer(
    descriptor: Descriptor,
    diff_id: Digest,
    reference: Reference,
    *,
    created: str,
    description: str,
    windows: bool = False,
) -> ImportedLayer | None:
    if compression_of(descriptor.media_type) is None:
        return None
    blob = RemoteBlob(
        digest=descriptor.digest,
        size=descriptor.size,
        media_type=descriptor.media_type,
        origins=(reference.name, *descriptor.urls),
        windows=windows,
    )
    return ImportedLayer(diff_id=diff_id, blob=blob, created=_seconds(created), description=description)


def _seconds(text: str) -> float | None:
    try:
        return max(datetime.fromisoformat(text).timestamp(), 0.0)
    except (ValueError, OverflowError):
        return None
