"""The layers of a stack as blobs in the content store: reused where they exist, made where they do not.

The layers of the base image keep the very blobs by which that image has them (fetched now if they are still lazy,
unless the image is only to be pushed) unless another compression is forced; even then the archive stays, so that the
image still has the layers of its base. So does every layer that is known only by the blob it came as. Layers of one
stack, and of several platforms, are packed at the same time. Which blob a layer gets never depends on what was built
or pulled before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from buildengine.digest import Digest
from buildengine.errors import StoreError
from buildengine.tracepoints import reach
from cache.layers import Layer, LayerBlob
from cache.opened import Cache
from cache.overlay import once
from worker.exporters.document import ExportLayer
from worker.exporters.options import ExportOptions
from worker.exporters.result import BaseLayer, PlatformImage
from worker.layers.compression import compression_of, media_type
from worker.layers.outcome import one_error
from worker.oci.chain import chain_ids
from worker.results import Stack
from worker.trees import Trees

if TYPE_CHECKING:
    from worker.layers.export import LayerExport

_DIFF_ID = "containerd.io/uncompressed"  # where a blob's record keeps its diff id, as containerd's labels do

_REWRITTEN = "buildkit/rewritten-timestamp"  # BuildKit util/converter/converter.go


class LayerBlobs:
    """Packs layers for exporters; one object serves a whole build."""

    def __init__(self, cache: Cache, trees: Trees) -> None:
        self._cache = cache
        self._trees = trees
        self._locks: dict[str, trio.Lock] = {}
        self.received: dict[Digest, Layer] = {}  # the layers that kept the blob they came as, by it; some may be lazy

    async def of(self, image: PlatformImage, options: ExportOptions) -> tuple[ExportLayer, ...]:
        """One blob for each layer of the stack, base first.

        What may not be distributed stays where it lies if that is preferred; else it is a layer like all others.
        """
        stack = once(image.stack)  # on itself a layer is no change: its blob would be empty
        layers = _as_received(self._cache.layers.of(stack), image.base, rewriting=options.layer_epoch is not None)
        windows = any(layer.blob.windows for layer in image.base)
        packed: list[ExportLayer | None] = [None] * len(layers)

        async def pack(position: int) -> None:
            layer = layers[position]
            async with self._locks.setdefault(layer.id, trio.Lock()):
                packed[position] = await self._pack(layer, stack[:position], options, windows=windows)

        with one_error():
            async with trio.open_nursery() as nursery:
                for position in range(len(layers)):
                    nursery.start_soon(pack, position)
        done = tuple(layer for layer in packed if layer is not None)
        await self._remember_chains(layers, done, options)
        if not options.prefer_nondistributable:
            return done
        urls = {layer.blob.digest: layer.urls for layer in image.base}
        return tuple(replace(layer, urls=urls.get(layer.digest, ())) for layer in done)

    async def _pack(self, layer: Layer, below: Stack, options: ExportOptions, *, windows: bool) -> ExportLayer:
        received = await self._received(layer, options)
        if received is not None:
            return received
        rewritten = options.layer_epoch if layer.remote is None else None
        name = _record_name(options, rewritten) + ("+windows" if windows else "")
        for blob in self._cache.layers.blobs(layer.id):
            if blob.compression == name and self._cache.store.info(blob.digest) is not None:
                return _export_layer(layer, blob, Digest(blob.annotations[_DIFF_ID]), rewritten=rewritten)
        made = await (
            self._made(layer, below, options, windows) if layer.remote is None else self._converted(layer, options)
        )
        blob = LayerBlob(
            compression=name,
            level=options.level,
            digest=made.digest,
            size=made.size,
            media_type=media_type(options.compression, docker=not options.oci_media_types),
            annotations={_DIFF_ID: made.diff_id},
        )
        reach("export.packed")
        await self._cache.layers.add_blob(layer.id, blob)
        return _export_layer(layer, blob, made.diff_id, rewritten=rewritten)

    async def _made(self, layer: Layer, below: Stack, options: ExportOptions, windows: bool) -> LayerExport:
        """A blob of a layer that was built here, laid out as the base image's are."""
        from worker.layers.export import export_layer
        from worker.layers.windows import shape
        from worker.layers.write import PLAIN

        if layer.parent is None:
            below = ()  # made on nothing (COPY --link): it needs no tree below, and is the same blob on every one
        await self._trees.ensure((*below, layer.id))
        with self._trees.open_stack(below) as lower:
            return await export_layer(
                self._cache.layers.directory(layer.id),
                lower if below else None,
                compression=options.compression,
                level=options.level,
                reproducible=options.epoch is not None,
                epoch=options.layer_epoch,
                shape=shape(options.layer_epoch) if windows else PLAIN,
                open_writer=self._cache.store.writer,
            )

    async def _converted(self, layer: Layer, options: ExportOptions) -> LayerExport:
        """Another blob of a layer that came as one. Its archive, and so its diff id, stays as it came."""
        from worker.layers.export import convert_layer

        assert layer.remote is not None
        await self._trees.fetch_blobs((layer,))
        with self._cache.store.open(layer.remote.digest) as blob:
            made = await convert_layer(
                blob,
                compression=options.compression,
                level=options.level,
                reproducible=options.epoch is not None,
                open_writer=self._cache.store.writer,
            )
        if layer.diff_id is not None and made.diff_id != layer.diff_id:
            raise StoreError(
                f"layer {layer.remote.digest} unpacks to {made.diff_id}, its image config promises {layer.diff_id}",
                hint="the image is broken: its publisher must push it again",
            )
        return made

    async def _received(self, layer: Layer, options: ExportOptions) -> ExportLayer | None:
        """The blob that the layer came as, if it may stay as it is."""
        remote = layer.remote
        if remote is None or layer.diff_id is None:
            return None
        if options.force_compression and compression_of(remote.media_type) is not options.compression:
            return None
        if options.force_compression and options.level is not None:
            return None
        self.received[remote.digest] = layer
        if options.store:
            await self._trees.fetch_blobs((layer,))
        blob = LayerBlob(compression="received", digest=remote.digest, size=remote.size, media_type=remote.media_type)
        return _export_layer(layer, blob, layer.diff_id)

    async def _remember_chains(
        self, layers: Sequence[Layer], packed: Sequence[ExportLayer], options: ExportOptions
    ) -> None:
        """Tell the cache what these layers are called: `FROM` of the image then finds them unpacked."""
        if options.layer_epoch is not None:
            return  # the blobs hold other times than the directories
        chains = chain_ids(export.diff_id for export in packed)
        await self._cache.layers.set_diff_ids(
            {
                layer.id: (export.diff_id, chain)
                for layer, export, chain in zip(layers, packed, chains, strict=True)
                if layer.diff_id != export.diff_id or layer.chain_id != chain
            }
        )


def _as_received(layers: Sequence[Layer], base: Sequence[BaseLayer], *, rewriting: bool) -> list[Layer]:
    """The layers, those of the base image with the blob by which that has them, wherever else they are known from.

    `rewriting` their times: then all others are packed anew, though some may have come as blobs, from a build cache.
    """
    found = [replace(layer, remote=None) for layer in layers] if rewriting else list(layers)
    for position, (layer, known) in enumerate(zip(layers, base, strict=False)):
        if layer.diff_id != known.diff_id:
            break
        blob, other = known.blob, layer.remote
        if other is not None and other.digest == blob.digest:
            blob = replace(blob, origins=tuple(dict.fromkeys(blob.origins + other.origins)))
        found[position] = replace(layer, remote=blob)
    return found


def _record_name(options: ExportOptions, rewritten: int | None) -> str:
    """What tells blobs of one layer apart: who compressed it, and to what its times were rewritten."""
    from worker.layers.compress import encoder  # who exports nothing compresses nothing

    made_by = encoder(options.compression, options.level, reproducible=options.epoch is not None)
    return made_by.name if rewritten is None else f"{made_by.name}@{rewritten}"


def _export_layer(layer: Layer, blob: LayerBlob, diff_id: Digest, *, rewritten: int | None = None) -> ExportLayer:
    """`rewritten` is the latest time in the layer, when its times were changed to that."""
    return ExportLayer(
        digest=blob.digest,
        size=blob.size,
        media_type=blob.media_type,
        diff_id=diff_id,
        created=layer.created,
        description=layer.description,
        annotations={_REWRITTEN: str(rewritten)} if rewritten is not None else {},
    )
