"""The `oci` and `docker` exporters: a committed image as one tar stream, or as a directory.

docker's archive is an OCI layout with `manifest.json` beside it; both have the images' names in index.json. A
directory is a plain layout for both, as BuildKit's is, and keeps the images it already holds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.limits import DISK, offload, still_wanted
from buildengine.reference import Reference
from buildengine.units import timestamp
from cache.store import ContentStore
from worker.exporters.destination import make_directory
from worker.exporters.image import CommittedImage
from worker.oci import dockertar, layout
from worker.oci.layout import Blob, NamedImage
from worker.oci.types import INDEX_TYPES, Descriptor, Index, Manifest, parse_manifest_or_index
from worker.session import BlobSink

CREATED = "org.opencontainers.image.created"


class _Descriptor:
    """A binary sink on a file descriptor, in a thread of `offload`: every byte is written or it raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            still_wanted()
            view = view[os.write(self._fd, view) :]
        return len(data)


async def write_committed(
    store: ContentStore, fd: int, image: CommittedImage, names: Sequence[Reference], *, docker: bool
) -> None:
    """Write `image` to `fd` as an OCI layout, with docker's files when `docker`."""
    named = _named(image, names)
    manifests = tuple((manifest, tuple(name.familiar for name in names)) for manifest in image.manifests)
    await write_images(store, fd, [named], manifests if docker else ())


async def write_layout(store: ContentStore, directory: str, image: CommittedImage, names: Sequence[Reference]) -> None:
    """Write `image` into `directory`, which is made if it is missing, as an OCI layout. Raises UserError."""
    named = [_named(image, names)]
    blobs = image_blobs(store, named)
    await offload(_write_directory, directory, named, blobs, limiter=DISK)


async def send_blobs(store: ContentStore, sink: BlobSink, image: CommittedImage) -> None:
    """Give `sink` what `image` is made of, an image's layers before the image and the images before their index."""
    for digest, size in reversed(_below(store, [image.target]).items()):
        await sink.put(digest, size, partial(store.open, digest))


def _write_directory(directory: str, images: Sequence[NamedImage], blobs: Sequence[Blob]) -> None:
    try:
        root = make_directory(directory)
        try:
            layout.write_directory(root, images, blobs)
        finally:
            os.close(root)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error


def dated(image: CommittedImage, epoch: int | None) -> CommittedImage:
    """The image with the time of its making in its descriptor, as an entry of index.json has it."""
    moment = timestamp(int(time.time()) if epoch is None else epoch)
    annotations = {CREATED: moment, **image.target.annotations}
    return replace(image, target=replace(image.target, annotations=annotations))


def _named(image: CommittedImage, names: Sequence[Reference]) -> NamedImage:
    return NamedImage(target=image.target, names=tuple(str(name) for name in names))


async def write_images(
    store: ContentStore,
    fd: int,
    images: Sequence[NamedImage],
    docker: Sequence[tuple[Manifest, Sequence[str]]] = (),
) -> None:
    """Write images of the store, with all they refer to. `docker`: manifests and names for `manifest.json`."""
    blobs = image_blobs(store, images)
    extra = dockertar.files(docker) if docker else None
    await offload(_write, fd, images, blobs, extra, limiter=DISK)


def _write(fd: int, images: Sequence[NamedImage], blobs: Sequence[Blob], extra: dict[str, bytes] | None) -> None:
    layout.write_tar(_Descriptor(fd), images, blobs, extra=extra)


def image_blobs(store: ContentStore, images: Sequence[NamedImage]) -> list[Blob]:
    """Every blob the images need and the store has, sorted by digest. Platforms never pulled are left out."""
    found = _below(store, [image.target for image in images])
    return [Blob(digest=digest, size=size, open=partial(store.open, digest)) for digest, size in sorted(found.items())]


def _below(store: ContentStore, targets: Iterable[Descriptor]) -> dict[Digest, int]:
    """The sizes of what the store has at and below `targets`; each before what it refers to first."""
    found: dict[Digest, int] = {}
    read: set[Digest] = set()  # an index may name another as often as it likes
    waiting = [(target.digest, target.media_type) for target in targets]
    while waiting:
        digest, media_type = waiting.pop()
        info = store.info(digest)
        if info is None or digest in read:
            continue
        read.add(digest)
        found[digest] = info.size
        parsed = parse_manifest_or_index(store.read(digest), media_type=media_type)
        if isinstance(parsed, Index):
            below = [e for e in parsed.manifests if e.media_type in INDEX_TYPES or "manifest" in e.media_type]
            waiting += [(entry.digest, entry.media_type) for entry in below]
        else:
            found.update((blob.digest, blob.size) for blob in (parsed.config, *parsed.layers))
    return found
