"""An image made of build results: layers as blobs, config, manifest and index in the content store.

`ImageWriter.commit` makes the documents; the image exporter gives them names in the local store, the archive
exporters write them out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

import trio

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.tracepoints import reach
from buildengine.values import dataclass
from cache.opened import Cache
from worker.exporters import document
from worker.exporters.blobs import LayerBlobs
from worker.exporters.document import ExportLayer
from worker.exporters.options import ExportOptions
from worker.layers.outcome import one_error
from worker.oci.chain import chain_ids
from worker.oci.types import Descriptor, Manifest, parse_manifest
from worker.results import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """One build result to export: the tree's layers and the frontend's image config."""

    platform: Platform
    stack: Stack
    config: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedImage:
    """An image whose every blob is in the content store. `layers` has one tuple for each manifest."""

    target: Descriptor
    manifests: tuple[Manifest, ...]
    layers: tuple[tuple[ExportLayer, ...], ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything but layers and target: configs and, below an index, manifests."""
        below = () if self.target.digest == self.manifests[0].digest else tuple(m.descriptor for m in self.manifests)
        return (*below, *(manifest.config for manifest in self.manifests))

    def response(self) -> dict[str, str]:
        """The exporter response of BuildKit's image exporters (exptypes)."""
        descriptor = json.dumps(self.target.to_json(), separators=(",", ":")).encode()
        response = {
            "containerimage.digest": str(self.target.digest),
            "containerimage.descriptor": base64.b64encode(descriptor).decode(),
        }
        if len(self.manifests) == 1:
            response["containerimage.config.digest"] = str(self.manifests[0].config.digest)
        return response


class ImageWriter:
    """Commits results to the content store."""

    def __init__(self, cache: Cache, blobs: LayerBlobs) -> None:
        self._cache = cache
        self._blobs = blobs

    async def commit(self, results: Sequence[PlatformImage], options: ExportOptions) -> CommittedImage:
        """One manifest for each result; an index when there are several, or annotations for one."""
        if not results:
            raise UserError("the build produced no image to export")
        layers: list[tuple[ExportLayer, ...]] = [()] * len(results)

        async def make(position: int) -> None:
            layers[position] = await self._blobs.of(results[position].stack, options)

        with one_error():
            async with trio.open_nursery() as nursery:
                for position in range(len(results)):
                    nursery.start_soon(make, position)
        family = document.OCI if options.oci_media_types else document.DOCKER
        made = [self._manifest(result, own, options, family) for result, own in zip(results, layers, strict=True)]
        target = made[0].descriptor
        if len(made) > 1 or options.index_annotations:
            raw = document.index_bytes(
                [(result.platform, manifest.raw) for result, manifest in zip(results, made, strict=True)],
                family,
                annotations=options.index_annotations,
            )
            self._cache.store.put(raw)
            target = Descriptor(media_type=family.index, digest=Digest.sha256(raw), size=len(raw))
        reach("export.committed")
        return CommittedImage(target=target, manifests=tuple(made), layers=tuple(layers))

    def _manifest(
        self,
        result: PlatformImage,
        layers: Sequence[ExportLayer],
        options: ExportOptions,
        family: document.MediaTypes,
    ) -> Manifest:
        config = document.config_bytes(result.config, result.platform, layers, epoch=options.epoch)
        raw = document.manifest_bytes(config, layers, family, annotations=options.annotations)
        self._cache.store.put(config)
        self._cache.store.put(raw)
        return parse_manifest(raw)


async def store_image(
    cache: Cache, image: CommittedImage, options: ExportOptions, *, labels: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give the image its names in the local store; without one it is dangling, as docker's are."""
    blobs = [blob.digest for blob in image.blobs]
    blobs += [layer.digest for layers in image.layers for layer in layers]
    await cache.images.add(
        image.target.digest,
        names=[str(name) for name in options.names],
        blobs=[image.target.digest, *blobs],
        chains=[chain for layers in image.layers for chain in chain_ids([layer.diff_id for layer in layers])],
    )
    response = image.response()
    if options.names:
        response["image.name"] = ",".join(str(name) for name in options.names)
    return response
