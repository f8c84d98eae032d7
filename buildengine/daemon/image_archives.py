"""Images of the store as archives, written and read: `pybuild image save` and `load`. Other commands do not need it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from buildengine.daemon.image_names import as_name, find_image
from buildengine.digest import Digest
from buildengine.limits import PIPE, offload
from buildengine.reference import parse
from cache.opened import Cache
from worker.exporters.archive import image_blobs
from worker.layers.decompress import decompress
from worker.oci import dockertar, layout
from worker.oci.chain import chain_ids
from worker.oci.layout import NamedImage
from worker.oci.load import LoadedImage, load_tar
from worker.oci.types import Manifest, parse_manifest_or_index

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


async def save(cache: Cache, references: Sequence[str], write: Callable[[bytes], object]) -> None:
    """`write` is called by a thread, and blocks."""
    named = [_named(cache, reference) for reference in references]
    images = [image for image, _ in named]
    extra = dockertar.files([entry for _, entry in named if entry is not None])
    blobs = image_blobs(cache.store, images)
    with cache.activity():
        await offload(lambda: layout.write_tar(_Sink(write), images, blobs, extra=extra), limiter=PIPE)


async def load(cache: Cache, read: Callable[[int], bytes]) -> Sequence[str]:
    """The names of each image that came. `read` is called by a thread, and blocks."""
    stream = cast(BinaryIO, io.BufferedReader(_Pulled(read), 1 << 20))
    with cache.activity():
        loaded = await offload(lambda: load_tar(decompress(stream), cache.store), limiter=PIPE)
        names = [await _add(cache, image) for image in loaded]
    await cache.sync()
    return names


class _Pulled(io.RawIOBase):
    """A raw stream on a function that reads at most so many bytes."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)


class _Sink:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


async def _add(cache: Cache, image: LoadedImage) -> str:
    names = [str(parse(name)) for name in image.names]
    blobs: list[Digest] = []
    chains: list[Digest] = []
    for loaded in image.manifests:
        manifest = loaded.manifest
        blobs += [manifest.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        if loaded.config is not None:
            chains += chain_ids(loaded.config.diff_ids)
    await cache.images.add(image.target.digest, names=names, blobs=blobs, chains=chains)
    return ", ".join(parse(name).familiar for name in names) or str(image.target.digest)


def _named(cache: Cache, reference: str) -> tuple[NamedImage, tuple[Manifest, Sequence[str]] | None]:
    """An image to save: under the name it was asked by, or under none. Docker's part knows single images only."""
    image = find_image(cache, reference)[0]
    target = parse_manifest_or_index(cache.store.read(image.digest))
    by_name = bool(image.name) and as_name(reference) == image.name
    named = NamedImage(target=target.descriptor, names=(image.name,) if by_name else ())
    if not isinstance(target, Manifest):
        return named, None
    return named, (target, [parse(image.name).familiar] if by_name else [])
