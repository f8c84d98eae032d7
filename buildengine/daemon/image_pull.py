"""`pybuild pull`: an image from its registry into the local store, with all its layers.

The index stays what it was, so digests are equal on both sides, whichever of its platforms are here. Nothing gets a
name before everything below that name is in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import trio

from buildengine import platform as platforms
from buildengine.builder import PulledImage, PullRequest
from buildengine.digest import Digest
from buildengine.errors import SourceError
from buildengine.reference import Reference, parse
from buildengine.values import dataclass
from cache.opened import Cache
from worker.images import Images
from worker.layers.outcome import one_error
from worker.oci.chain import chain_ids
from worker.oci.types import CONFIG_TYPES, Descriptor, ImageConfig, Index, Manifest

OnLayer = Callable[[Digest, bool], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What belongs to an image: its documents, root first, and the configs by the digest of their manifest."""

    origin: str
    digest: Digest
    documents: tuple[Index | Manifest, ...]
    configs: Mapping[Digest, ImageConfig]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        return tuple(document for document in self.documents if isinstance(document, Manifest))

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """All that is to be fetched: layers, and the configs of what is no image, each once."""
        found: dict[Digest, Descriptor] = {}
        for manifest in self.manifests:
            other = () if manifest.config.media_type in CONFIG_TYPES else (manifest.config,)
            found |= {blob.digest: blob for blob in (*manifest.layers, *other)}
        return tuple(found.values())

    @property
    def blobs(self) -> tuple[Digest, ...]:
        configs = (manifest.config.digest for manifest in self.manifests)
        documents = (document.digest for document in self.documents)
        return (*documents, *configs, *(layer.digest for layer in self.layers))


async def pull(cache: Cache, images: Images, request: PullRequest, on_layer: OnLayer) -> PulledImage:
    """Raises UserError, SourceError, StoreError."""
    reference = parse(request.reference)
    if reference.digest is not None:
        reference = replace(reference, tag="")  # it names one image, whatever tag stood beside it
    name = str(reference)
    with cache.activity():
        before = cache.images.find(name)
        found = await _look_up(images, reference, request)
        fetched = await _fetch(images, found.layers, found.origin, on_layer)
        chains = [chain for config in found.configs.values() for chain in chain_ids(config.diff_ids)]
        await cache.images.add(found.digest, names=[name], blobs=found.blobs, chains=chains)
    is_new = fetched or before is None or before.digest != found.digest
    return PulledImage(name=name, digest=found.digest, is_new=is_new)


async def _look_up(images: Images, reference: Reference, request: PullRequest) -> _Found:
    if request.all_platforms:
        tree = await images.ask_all(reference)
        return _Found(origin=reference.name, digest=tree.digest, documents=tree.documents, configs=tree.configs)
    image = await images.ask(reference, request.platform or platforms.local())
    offered = image.config.platform
    if request.platform is not None and not image.indexes and platforms.rank(request.platform, offered) is None:
        raise SourceError(
            f"{reference.familiar} is an image for {offered}, not for {request.platform}",
            hint="it is for no other platform: pull it without --platform",
        )
    return _Found(
        origin=reference.name,
        digest=image.digest,
        documents=(*image.indexes, image.manifest),
        configs={image.manifest.digest: image.config},
    )


async def _fetch(images: Images, layers: Iterable[Descriptor], origin: str, on_layer: OnLayer) -> bool:
    """All at once, as far as connections allow; whether any of them was not here."""
    fetched: list[Digest] = []

    async def fetch(layer: Descriptor) -> None:
        is_new = await images.fetch_blob(layer, (origin,))
        if is_new:
            fetched.append(layer.digest)
        on_layer(layer.digest, is_new)

    with one_error():
        async with trio.open_nursery() as nursery:
            for layer in layers:
                nursery.start_soon(fetch, layer)
    return bool(fetched)
