"""The local image store behind `pybuild image`: `buildengine.builder.Images` on the cache, without an engine."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import BinaryIO, TypeVar, cast

from buildengine.builder import ImageInfo
from buildengine.daemon import image_documents as documents
from buildengine.daemon.given_context import Pulled
from buildengine.daemon.image_names import as_name, find_image
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.limits import DISK, offload
from buildengine.platform import Platform, local, rank
from buildengine.reference import parse
from cache import prune
from cache.images import StoredImage
from cache.opened import Cache
from worker.exporters.archive import image_blobs
from worker.images import manifests_of
from worker.layers.decompress import decompress
from worker.oci import dockertar, layout
from worker.oci.chain import chain_ids
from worker.oci.layout import NamedImage
from worker.oci.load import LoadedImage, load_tar
from worker.oci.types import ImageConfig, Manifest, parse_manifest_or_index

_T = TypeVar("_T")


class LocalImages:
    """`run` opens the cache, calls an async function with it and closes the cache."""

    def __init__(self, run: Callable[[Callable[[Cache], Awaitable[object]]], object]) -> None:
        self._run_any = run

    def _run(self, fn: Callable[[Cache], Awaitable[_T]]) -> _T:
        return cast(_T, self._run_any(fn))

    def list(self) -> Sequence[ImageInfo]:
        async def run(cache: Cache) -> Sequence[ImageInfo]:
            return [_info(cache, image) for image in cache.images.list()]

        return self._run(run)

    def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]:
        async def run(cache: Cache) -> Mapping[str, object]:
            found = find_image(cache, reference)
            manifests = manifests_of(cache.store, found[0].digest)
            manifest, config = _chosen(found[0], manifests, platform)
            return documents.inspection(
                manifest,
                config,
                names=[image.name for image in found],
                target=parse_manifest_or_index(cache.store.read(found[0].digest)).descriptor,
                platforms=[str(each.platform) for _, each in manifests],
            )

        return self._run(run)

    def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]:
        async def run(cache: Cache) -> Sequence[Mapping[str, object]]:
            image = find_image(cache, reference)[0]
            return documents.steps(*_chosen(image, manifests_of(cache.store, image.digest), platform))

        return self._run(run)

    def tag(self, source: str, target: str) -> None:
        name = str(parse(target))

        async def run(cache: Cache) -> None:
            await cache.images.tag(find_image(cache, source)[0].digest, name)

        self._run(run)

    def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        return self._run(partial(_remove, reference=reference, force=force))

    def prune(self, *, all: bool = False) -> Sequence[ImageInfo]:
        async def run(cache: Cache) -> Sequence[ImageInfo]:
            infos = {image.digest: _info(cache, image) for image in cache.images.list()}
            gone = await cache.images.prune(all=all)
            await prune.collect(cache)
            return [infos[image.digest] for image in gone if image.digest in infos]

        return self._run(run)

    def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None:
        async def run(cache: Cache) -> None:
            named = [_named(cache, reference) for reference in references]
            images = [image for image, _ in named]
            extra = dockertar.files([entry for _, entry in named if entry is not None])
            blobs = image_blobs(cache.store, images)
            await offload(lambda: layout.write_tar(_Sink(write), images, blobs, extra=extra), limiter=DISK)

        self._run(run)

    def load(self, read: Callable[[int], bytes]) -> Sequence[str]:
        async def run(cache: Cache) -> Sequence[str]:
            stream = cast(BinaryIO, io.BufferedReader(Pulled(read), 1 << 20))
            loaded = await offload(lambda: load_tar(decompress(stream), cache.store), limiter=DISK)
            return [await _add(cache, image) for image in loaded]

        return self._run(run)


class _Sink:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


# --- finding ---------------------------------------------------------------------------------------------------


def _chosen(
    image: StoredImage, found: Sequence[tuple[Manifest, ImageConfig]], platform: Platform | None
) -> tuple[Manifest, ImageConfig]:
    """The manifest to show: the only one; of an index that for `platform`, or what fits this host, or the first."""
    shown = parse(image.name).familiar if image.name else str(image.digest)
    if not found:
        raise SourceError(f"image {shown} has no manifest in the store")
    wanted = platform or local()
    ranked = [(place, entry) for entry in found if (place := rank(wanted, entry[1].platform)) is not None]
    if ranked:
        return min(ranked, key=lambda item: item[0])[1]
    if platform is not None:
        offered = ", ".join(str(config.platform) for _, config in found)
        raise SourceError(f"image {shown} is not for {platform}", hint=f"it is for {offered}")
    return found[0]


def _info(cache: Cache, image: StoredImage) -> ImageInfo:
    found = manifests_of(cache.store, image.digest)
    platforms: tuple[Platform, ...] = tuple(config.platform for _, config in found)
    single = len(found) == 1 and found[0][0].digest == image.digest
    return ImageInfo(
        name=parse(image.name).familiar if image.name else "",
        digest=image.digest,
        config_digest=found[0][0].config.digest if single else None,
        created=documents.created_seconds(found[0][1].document) if found else image.created,
        size=image.size,
        platforms=platforms,
    )


# --- changing --------------------------------------------------------------------------------------------------


async def _remove(cache: Cache, *, reference: str, force: bool) -> Sequence[str]:
    found = find_image(cache, reference)
    first = found[0]
    names = [image.name for image in found if image.name]
    by_name = bool(first.name) and as_name(reference) == first.name
    if not by_name and len(names) > 1 and not force:
        raise UserError(
            f"image {first.digest.short} has several names: {', '.join(parse(name).familiar for name in names)}",
            hint="remove it by name, or use --force",
        )
    if by_name:
        gone = await cache.images.untag(first.name)
        lines = [f"Untagged: {parse(first.name).familiar}"]
    else:
        names, gone = list(await cache.images.remove(first.digest)), first.digest
        lines = [f"Untagged: {parse(name).familiar}" for name in names]
    if gone is not None:
        lines.append(f"Deleted: {gone}")
        await prune.collect(cache)
    return lines


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
