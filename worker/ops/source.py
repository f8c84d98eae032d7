"""Source ops: what a build reads from outside. One class for each scheme; `make` chooses.

docker-image://   a stack of layers, lazy until something needs their files
oci-layout://     the same, out of a layout of the client's
local://          a directory of the user's, unread
http(s)://        one file in a layer of its own
git://            a checkout in a layer of its own
"""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.digest import Digest
from buildengine.errors import SourceError
from cache.layers import RemoteBlob
from llb import ops
from solver.vertex import CacheMap, Op, Result
from worker.context import OpContext
from worker.images import BaseImage
from worker.oci.chain import chain_ids
from worker.oci.types import Descriptor
from worker.ops.keys import key_digest
from worker.ops.local import LocalSource
from worker.results import Snapshot, Stack
from worker.sources.origin import GitOrigin, HttpOrigin, ImageOrigin, LayoutOrigin, LocalOrigin, parse


def make(context: OpContext, op: ops.SourceOp) -> Op:
    """The op for a source. Raises InvalidDefinition for a scheme that nobody knows."""
    origin = parse(op)
    match origin:
        case ImageOrigin() | LayoutOrigin():
            return ImageSource(context, origin)
        case LocalOrigin():
            return LocalSource(context, origin)
        case HttpOrigin():
            from worker.ops.http import HttpOp

            return HttpOp(context, origin)
        case GitOrigin():
            from worker.ops.git import GitOp

            return GitOp(context, origin)


class ImageSource:
    """An image, wherever it is: resolved when its key is asked for, fetched when its files are."""

    is_bound = True

    def __init__(self, context: OpContext, origin: ImageOrigin | LayoutOrigin) -> None:
        self._context = context
        self._origin = origin

    async def cache_map(self) -> CacheMap:
        """Two keys: the manifest's, and that of the layers alone, which a rebuilt image may share."""
        image = await self._image()
        layers = self._layers(image)
        self._context.build.images.pulls.expect((descriptor.digest for descriptor, _ in layers), self._context.reporter)
        return CacheMap(
            digest=key_digest("image", image.manifest.digest, str(self._context.platform), len(layers)),
            aliases=(key_digest("image.layers", tuple(diff_id for _, diff_id in layers)),),
            pin=str(image.digest),
        )

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        image = await self._image()
        layers = self._context.cache.layers
        stack: Stack = ()
        received = self._layers(image)
        chains = chain_ids(diff_id for _, diff_id in received)
        for (descriptor, diff_id), chain in zip(received, chains, strict=True):
            layer = await layers.add_remote(
                parent=stack,
                diff_id=diff_id,
                chain_id=chain,
                remote=RemoteBlob(
                    digest=descriptor.digest,
                    size=descriptor.size,
                    media_type=descriptor.media_type,
                    origins=(*((image.origin,) if image.origin else ()), *descriptor.urls),
                    windows=image.config.platform.os == "windows",
                ),
                description=f"pulled from {self._origin.reference}",
            )
            stack = (*stack, layer)
        return [Snapshot(layers, stack) if stack else None]

    async def _image(self) -> BaseImage:
        """Resolved once for the whole build: config, key and layers are of one digest."""
        images, platform, origin = self._context.build.images, self._context.platform, self._origin
        if isinstance(origin, LayoutOrigin):
            return await images.resolve_layout(origin, platform=platform)
        image = await images.resolve(origin.reference, platform=platform, mode=origin.resolve_mode)
        if origin.checksum is not None and origin.checksum != image.digest:
            raise SourceError(
                f"image digest {image.digest} for {origin.reference} does not match expected checksum {origin.checksum}"
            )
        return image

    def _layers(self, image: BaseImage) -> tuple[tuple[Descriptor, Digest], ...]:
        limit = self._origin.layer_limit
        if limit > len(image.layers):
            has = len(image.layers)
            raise SourceError(f"layer limit {limit} is greater than the number of layers in the image {has}")
        return image.layers[:limit] if limit else image.layers
