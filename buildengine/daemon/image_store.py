"""The images of the store, behind `pybuild image`, `push` and `pull`: on an open cache, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from buildengine.builder import ImageInfo, PulledImage, PullRequest
from buildengine.config import Config
from buildengine.daemon import image_documents as documents
from buildengine.daemon.image_names import as_name, find_image
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.events import EventSink
from buildengine.limits import DISK, offload
from buildengine.platform import Platform, local, rank
from buildengine.reference import parse
from cache import prune
from cache.images import StoredImage
from cache.opened import Cache
from worker.images import manifests_of, open_images
from worker.oci.types import ImageConfig, Manifest, parse_manifest_or_index
from worker.registry.configured import registry_config
from worker.registry.hosts import RegistryConfig
from worker.session import Credentials


class StoreImages:
    """The images of an open cache: an `api.images.StoredImages`. `config` says how registries are reached."""

    def __init__(self, cache: Cache, config: Config) -> None:
        self._cache = cache
        self._config = config

    async def list(self) -> Sequence[ImageInfo]:
        return await offload(lambda: [_info(self._cache, image) for image in self._cache.images.list()], limiter=DISK)

    async def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]:
        return await offload(_inspect, self._cache, reference, platform, limiter=DISK)

    async def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]:
        return await offload(_history, self._cache, reference, platform, limiter=DISK)

    async def tag(self, source: str, target: str) -> None:
        name = str(parse(target))
        await self._cache.images.tag(find_image(self._cache, source)[0].digest, name)

    async def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        return await _remove(self._cache, reference=reference, force=force)

    async def prune(self, *, all: bool = False) -> Sequence[ImageInfo]:
        infos = {info.digest: info for info in await self.list()}
        gone = await self._cache.images.prune(all=all)
        await prune.collect(self._cache)
        return [infos[image.digest] for image in gone if image.digest in infos]

    async def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None:
        from buildengine.daemon import image_archives

        await image_archives.save(self._cache, references, write)

    async def load(self, read: Callable[[int], bytes]) -> Sequence[str]:
        from buildengine.daemon import image_archives

        return await image_archives.load(self._cache, read)

    async def push(
        self, reference: str, names: Sequence[str], credentials: Credentials, on_event: EventSink
    ) -> Sequence[str]:
        from buildengine.daemon.publish import push_stored

        return await push_stored(
            self._cache,
            reference,
            names,
            config=self._registries(),
            credentials=credentials,
            on_event=on_event,
        )

    async def pull(
        self, request: PullRequest, credentials: Credentials, on_layer: Callable[[Digest, bool], object]
    ) -> PulledImage:
        from buildengine.daemon.image_pull import pull

        async with open_images(self._cache, self._registries, credentials) as images:
            pulled = await pull(self._cache, images, request, on_layer)
        await self._cache.sync()
        return pulled

    def _registries(self) -> RegistryConfig:
        return registry_config(self._config.registries, self._config.environment)


# --- finding ---------------------------------------------------------------------------------------------------


def _inspect(cache: Cache, reference: str, platform: Platform | None) -> Mapping[str, object]:
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


def _history(cache: Cache, reference: str, platform: Platform | None) -> Sequence[Mapping[str, object]]:
    image = find_image(cache, reference)[0]
    return documents.steps(*_chosen(image, manifests_of(cache.store, image.digest), platform))


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
