"""An image made of build results: layers as blobs, config, manifest and index in the content store.

`ImageWriter.commit` makes the documents; the image exporter gives them names in the local store, the archive
exporters write them out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace

import trio

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.reference import Reference
from buildengine.tracepoints import reach
from buildengine.values import dataclass
from cache.opened import Cache
from worker.exporters import document
from worker.exporters.blobs import LayerBlobs
from worker.exporters.document import ExportLayer
from worker.exporters.options import ExportOptions
from worker.exporters.result import BuildResult, PlatformImage
from worker.layers.outcome import one_error
from worker.oci.chain import chain_ids
from worker.oci.types import INDEX_TYPES, Descriptor, Manifest, parse_manifest
from worker.trees import Trees


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedImage:
    """An image whose every blob is in the content store. `layers` has one tuple for each manifest.

    `target` is the manifest, or the index of all; the descriptor has its platform and annotations. `attested` are
    the manifests of attestations that the index has beside the images.
    """

    target: Descriptor
    manifests: tuple[Manifest, ...]
    layers: tuple[tuple[ExportLayer, ...], ...]
    attested: tuple[Manifest, ...] = ()

    @property
    def is_index(self) -> bool:
        return self.target.media_type in INDEX_TYPES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything but layers and target: configs, below an index manifests, and all that is attested."""
        below = tuple(m.descriptor for m in (*self.manifests, *self.attested)) if self.is_index else ()
        statements = [statement for manifest in self.attested for statement in manifest.layers]
        return (*below, *(manifest.config for manifest in (*self.manifests, *self.attested)), *statements)

    def response(self, names: Sequence[Reference] = ()) -> dict[str, str]:
        """The exporter response of BuildKit's image exporters (exptypes)."""
        descriptor = json.dumps(self.target.to_json(), separators=(",", ":")).encode()
        response = {
            "containerimage.digest": str(self.target.digest),
            "containerimage.descriptor": base64.b64encode(descriptor).decode(),
        }
        if not self.is_index:
            response["containerimage.config.digest"] = str(self.manifests[0].config.digest)
        if names:
            response["image.name"] = ",".join(map(str, names))
        return response


def _is_attested(result: BuildResult, options: ExportOptions) -> bool:
    """Whether an image of its own needs an index for what is attested of it."""
    inline = options.inline_attestations
    return any(inline or not one.claim.is_inline_only for image in result.images for one in image.attestations)


class ImageWriter:
    """Commits results to the content store. `inline_cache`: each image holds what it takes to find its layers again."""

    def __init__(self, cache: Cache, trees: Trees, blobs: LayerBlobs, *, inline_cache: bool = False) -> None:
        self._cache = cache
        self._trees = trees
        self._blobs = blobs
        self._inline_cache = inline_cache

    async def commit(self, result: BuildResult, options: ExportOptions) -> CommittedImage:
        """One manifest for each platform, and an index of them when the result is a set, or when something is attested
        of it. Raises UserError."""
        if not result.images:
            raise UserError("the build produced no image to export")
        is_index = result.multi_platform or _is_attested(result, options)
        options.annotations.check(result.platforms, multi_platform=is_index)
        layers = await self._layers(result, options)
        with_attestations = is_index and any(image.attestations for image in result.images)
        family = document.OCI if options.oci_media_types or with_attestations else document.DOCKER
        made = [self._manifest(image, own, options, family) for image, own in zip(result.images, layers, strict=True)]
        described = [
            replace(
                manifest.descriptor,
                platform=image.platform,
                annotations=options.annotations.manifest_descriptor(image.id),
            )
            for image, manifest in zip(result.images, made, strict=True)
        ]
        attested: list[Descriptor] = []
        if with_attestations:
            for image, own, descriptor in zip(result.images, layers, described, strict=True):
                attested += await self._attested(image, own, descriptor, options)
        target = self._index([*described, *attested], options, family) if is_index else described[0]
        reach("export.committed")
        return CommittedImage(
            target=target,
            manifests=tuple(made),
            layers=layers,
            attested=tuple([parse_manifest(self._cache.store.read(one.digest)) for one in attested]),
        )

    async def _attested(
        self, image: PlatformImage, layers: Sequence[ExportLayer], descriptor: Descriptor, options: ExportOptions
    ) -> list[Descriptor]:
        """The manifest of what is attested of an image, if anything is."""
        if not image.attestations:
            return []
        from worker.exporters.attested import attestation_manifest

        made = await attestation_manifest(self._trees, self._cache.layers, image, layers, descriptor, options)
        for blob in made.blobs:
            self._cache.store.put(blob)
        return [made.descriptor]

    async def _layers(self, result: BuildResult, options: ExportOptions) -> tuple[tuple[ExportLayer, ...], ...]:
        """Those of all platforms at once."""
        layers: list[tuple[ExportLayer, ...]] = [()] * len(result.images)

        async def make(position: int) -> None:
            layers[position] = await self._blobs.of(result.images[position], options)

        with one_error():
            async with trio.open_nursery() as nursery:
                for position in range(len(layers)):
                    nursery.start_soon(make, position)
        return tuple(layers)

    def _index(
        self, manifests: Sequence[Descriptor], options: ExportOptions, family: document.MediaTypes
    ) -> Descriptor:
        raw = document.index_bytes(manifests, family, annotations=options.annotations.index)
        self._cache.store.put(raw)
        return Descriptor(
            media_type=family.index,
            digest=Digest.sha256(raw),
            size=len(raw),
            annotations=options.annotations.index_descriptor,
        )

    def _manifest(
        self,
        image: PlatformImage,
        layers: Sequence[ExportLayer],
        options: ExportOptions,
        family: document.MediaTypes,
    ) -> Manifest:
        config = document.config_bytes(
            image.config,
            image.platform,
            layers,
            epoch=options.epoch,
            base=image.base_config,
            cache=self._cache_of(image, layers) if self._inline_cache else b"",
        )
        raw = document.manifest_bytes(config, layers, family, annotations=options.annotations.manifest(image.id))
        self._cache.store.put(config)
        self._cache.store.put(raw)
        return parse_manifest(raw)

    def _cache_of(self, image: PlatformImage, layers: Sequence[ExportLayer]) -> bytes:
        from worker.remotecache.inline import inline_cache

        diff_ids = [layer.diff_id for layer in layers]
        return inline_cache(image.key_graph(), self._cache.layers, image.stack, diff_ids)


async def store_image(cache: Cache, image: CommittedImage, options: ExportOptions) -> dict[str, str]:
    """Give the image its names in the local store; without one it is dangling, as docker's are."""
    names = options.names_of(image.target.digest)
    blobs = [blob.digest for blob in image.blobs]
    blobs += [layer.digest for layers in image.layers for layer in layers]
    await cache.images.add(
        image.target.digest,
        names=[str(name) for name in names],
        blobs=[image.target.digest, *blobs],
        chains=[chain for layers in image.layers for chain in chain_ids([layer.diff_id for layer in layers])],
    )
    return image.response(names)
