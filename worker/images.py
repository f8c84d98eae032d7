"""Image references of one build: each resolved once, from the local store or a registry, and its blobs fetched.

`default` and `local` take an image that the local store knows by that very name, else ask the registry; `pull` always
asks the registry. By a digest an image is taken from the store when its repository is known to have it
(`cache.documents`), else its registry is asked, with the credentials of this build. Config, key and layers of an image
all come from the digest found here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError, meant
from buildengine.platform import Platform, rank
from buildengine.reference import Reference, parse
from buildengine.values import dataclass
from cache.layers import Layer
from cache.opened import Cache
from cache.store import ContentStore
from worker.oci.choose import candidates
from worker.oci.document import InvalidImage
from worker.oci.types import (
    CONFIG_LIMIT,
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    diff_ids_by_layer,
    parse_config,
    parse_manifest_or_index,
)
from worker.pulls import Progress, Pulls
from worker.session import BlobSource, Credentials, Layouts
from worker.sources.origin import LayoutOrigin

if TYPE_CHECKING:  # a build on local images never needs them
    from worker.registry.hosts import RegistryConfig
    from worker.registry.puller import KnownBlobs, Registry, RemoteImage, RemoteTree
    from worker.registry.signatures import SignatureChain

_MODES = ("default", "pull", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """An image that a build starts from. `origin` is `host/repository`, "" for one of the local store."""

    reference: str
    digest: Digest
    manifest: Manifest
    config: ImageConfig
    origin: str

    @property
    def layers(self) -> tuple[tuple[Descriptor, Digest], ...]:
        return diff_ids_by_layer(self.manifest, self.config)


@asynccontextmanager
async def open_images(
    cache: Cache, config: Callable[[], RegistryConfig], credentials: Credentials, layouts: Layouts | None = None
) -> AsyncIterator[Images]:
    """The images of one build, `layouts` those of its client. A registry client is made only when one is asked."""
    async with AsyncExitStack() as stack:

        async def open_client() -> Registry:
            from worker.registry.puller import open_registry

            return await stack.enter_async_context(open_registry(config(), credentials))

        yield Images(cache, open_client, layouts)


class Images:
    """Made by `open_images`."""

    def __init__(
        self, cache: Cache, open_client: Callable[[], Awaitable[Registry]], layouts: Layouts | None = None
    ) -> None:
        self._cache = cache
        self._open_client = open_client
        self._layouts = layouts
        self.pulls = Pulls()
        self._in_layouts: dict[Digest, BlobSource] = {}  # where layers are that no registry is known to have
        self._client: Registry | None = None
        self._client_lock = trio.Lock()
        self._locks: dict[object, trio.Lock] = {}
        self._resolved: dict[object, BaseImage] = {}

    async def resolve(self, text: str, *, platform: Platform, mode: str = "default") -> BaseImage:
        """The image that `text` names for `platform`. Raises UserError, SourceError."""
        if mode not in _MODES:
            raise UserError(f"unknown image resolve mode {mode!r}", hint=f"one of {', '.join(_MODES)}")
        key = (text, platform, mode)
        async with self._locks.setdefault(key, trio.Lock()):
            if key not in self._resolved:
                self._resolved[key] = await self._resolve(parse(text), platform, mode)
        return self._resolved[key]

    async def resolve_layout(self, origin: LayoutOrigin, *, platform: Platform) -> BaseImage:
        """The image of a layout of the client's. Raises UserError, SourceError."""
        key = (origin.reference, origin.store, origin.session, platform)
        async with self._locks.setdefault(key, trio.Lock()):
            if key not in self._resolved:
                from worker.layouts import LayoutReader

                assert self._layouts is not None
                reader = LayoutReader(origin, self._layouts)
                chosen = await reader.choose(platform)
                for layer in chosen.manifest.layers:
                    self._in_layouts.setdefault(layer.digest, reader.source)
                self._resolved[key] = BaseImage(
                    reference=origin.reference,
                    digest=reader.digest,
                    manifest=chosen.manifest,
                    config=chosen.config,
                    origin="",
                )
        return self._resolved[key]

    def with_config(self, digest: Digest) -> BaseImage | None:
        """The image with this config that the build has resolved; of several the one whose digest sorts first."""
        found = (image for image in self._resolved.values() if image.config.digest == digest)
        return min(found, key=lambda image: image.digest, default=None)

    async def _resolve(self, reference: Reference, platform: Platform, mode: str) -> BaseImage:
        if mode != "pull":
            found = self._in_store(reference, platform)
            if found is not None:
                return found
        found = self._pinned(reference, platform)
        if found is not None:
            return found
        try:
            remote = await self.ask(reference, platform)
        except SourceError as error:
            error.hint = self._other_platforms(reference) or self._similar(reference) or error.hint
            raise
        return BaseImage(
            reference=str(remote.reference),
            digest=remote.digest,
            manifest=remote.manifest,
            config=remote.config,
            origin=remote.origin,
        )

    async def ask(self, reference: Reference, platform: Platform) -> RemoteImage:
        """What its registry says that `reference` is now for `platform`. Its documents are in the store then.

        A tag that is in the local store costs one HEAD request when it has not moved.
        """
        registry, known = await self._registry(), self._known(reference)
        image = await registry.resolve(reference, platform, known=known, expected=self._stored(reference))
        self._remember(reference, (*image.indexes, image.manifest, image.config))
        return image

    async def ask_all(self, reference: Reference) -> RemoteTree:
        """As `ask`, for all platforms at once."""
        registry, known = await self._registry(), self._known(reference)
        tree = await registry.resolve_all(reference, known=known, expected=self._stored(reference))
        self._remember(reference, (*tree.documents, *tree.configs.values()))
        return tree

    async def allow_insecure(self, domain: str) -> None:
        """Of this registry any certificate will do for the rest of the build, or plain HTTP."""
        (await self._registry()).allow_insecure(domain)

    async def fetch_config(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A small blob that a manifest of `reference` is about. Raises SourceError."""
        return await (await self._registry()).fetch_config(reference, descriptor)

    async def signatures(self, reference: Reference, platform: Platform) -> SignatureChain:
        """What signs this image for `platform`. Raises SourceError."""
        from worker.registry.signatures import signature_chain

        return await signature_chain(await self._registry(), reference, platform, known=self._known(reference))

    async def fetch(self, layer: Layer) -> None:
        """Bring the blob of a lazy layer into the content store. Whoever else wants it meanwhile, waits."""
        remote = layer.remote
        if remote is None or self._cache.store.info(remote.digest) is not None:
            return
        if not remote.origins and remote.digest not in self._in_layouts:
            raise SourceError(
                f"layer {remote.digest} is gone from the local store", hint="pull or load the image again"
            )
        descriptor = Descriptor(media_type=remote.media_type, digest=remote.digest, size=remote.size)
        with self.pulls.downloading(remote.digest) as on_progress:
            await self.fetch_blob(descriptor, remote.origins, on_progress)

    async def fetch_blob(
        self,
        descriptor: Descriptor,
        origins: Sequence[str],
        on_progress: Progress = lambda digest, current, total: None,
    ) -> bool:
        """Bring a blob into the content store, from the first of `origins` that has it; False when it is here."""
        store = self._cache.store
        if store.info(descriptor.digest) is not None:
            return False
        layout = self._in_layouts.get(descriptor.digest)
        async with self._cache.locks.exclusive(f"blob {descriptor.digest}"):
            if store.info(descriptor.digest) is not None:
                return False
            with store.writer(expected=descriptor.digest, size=descriptor.size) as writer:
                if layout is not None:
                    from worker.layouts import copy_blob

                    await copy_blob(layout, descriptor, writer, on_progress)
                else:
                    registry = await self._registry()
                    await registry.fetch_blob(descriptor, origins, writer, on_progress=on_progress)
                writer.commit()
        return True

    async def _registry(self) -> Registry:
        async with self._client_lock:
            if self._client is None:
                self._client = await self._open_client()
        return self._client

    def _remember(self, reference: Reference, documents: Iterable[Manifest | Index | ImageConfig]) -> None:
        """Whoever pins this image of this repository by its digest needs no registry until the next prune."""
        self._cache.documents.keep((document.raw for document in documents), reference.name)

    def _stored(self, reference: Reference) -> Digest | None:
        """The digest that the local store has under the name of `reference`."""
        stored = self._cache.images.find(str(reference))
        return stored.digest if stored is not None else None

    def _known(self, reference: Reference) -> KnownBlobs:
        """The documents that this repository has sent before, whoever asked for them."""
        return lambda digest: self._cache.documents.read(digest, reference.name, limit=CONFIG_LIMIT)

    # --- what is here ---------------------------------------------------------------------------------------

    def _here(self, digest: Digest) -> bytes | None:
        store = self._cache.store
        return store.read(digest, limit=CONFIG_LIMIT) if store.info(digest) is not None else None

    def _pinned(self, reference: Reference, platform: Platform) -> BaseImage | None:
        """An image by its digest, of which all documents are here and known to be of its repository."""
        if reference.digest is None:
            return None
        found = _manifest_for(self._known(reference), reference.digest, platform)
        if found is None:
            return None
        manifest, config = found
        return BaseImage(
            reference=str(reference),
            digest=reference.digest,
            manifest=manifest,
            config=config,
            origin=reference.name,
        )

    def _similar(self, reference: Reference) -> str:
        """An image of the local store whose name is much like this one's."""
        stored = [parse(image.name) for image in self._cache.images.list() if image.name]
        names = {_own_part(each): each.familiar for each in stored if each.domain == reference.domain}
        close = meant(_own_part(reference), names)
        return f"did you mean {names[close]}, which is in the local store?" if close else ""

    def _other_platforms(self, reference: Reference) -> str:
        """What the local store has under this name, for whom it did not fit; "" when that is nothing."""
        stored = self._cache.images.find(str(reference))
        found = manifests_of(self._cache.store, stored.digest) if stored is not None else []
        platforms = ", ".join(sorted({str(config.platform) for _, config in found})[:10])
        return f"the {reference.familiar} of the local store is for {platforms}" if platforms else ""

    def _in_store(self, reference: Reference, platform: Platform) -> BaseImage | None:
        name = str(replace(reference, digest=None)) if reference.tag else str(reference)
        stored = self._cache.images.find(name)
        if stored is None or (reference.digest is not None and stored.digest != reference.digest):
            return None
        found = _manifest_for(self._here, stored.digest, platform)
        if found is None:
            return None
        manifest, config = found
        pinned = str(reference.with_digest(stored.digest))
        return BaseImage(reference=pinned, digest=stored.digest, manifest=manifest, config=config, origin="")


def _own_part(reference: Reference) -> str:
    """What makes names alike or not: neither a registry nor a tag that most of them have."""
    return reference.familiar.removeprefix(f"{reference.domain}/").removesuffix(":latest")


def _manifest_for(
    known: KnownBlobs, digest: Digest, platform: Platform, *, labelled: bool = False
) -> tuple[Manifest, ImageConfig] | None:
    """The manifest under `digest` that fits `platform`, with its config; None when `known` has none.

    What an index says of a manifest is believed (`labelled`), as it is when a registry is asked.
    """
    raw = known(digest)
    if raw is None:
        return None
    document = parse_manifest_or_index(raw)
    if isinstance(document, Index):
        entries = (e for e in candidates(document, platform) if e.media_type in MANIFEST_TYPES | INDEX_TYPES)
        found = (_manifest_for(known, e.digest, platform, labelled=e.platform is not None) for e in entries)
        return next((image for image in found if image is not None), None)
    raw = known(document.config.digest)
    if raw is None:
        return None
    config = parse_config(raw)
    return (document, config) if labelled or rank(platform, config.platform) is not None else None


def manifests_of(store: ContentStore, digest: Digest) -> list[tuple[Manifest, ImageConfig]]:
    """Every image manifest under `digest` that the store has, with its config, each once. Attestations are left out.

    So is what is no image: whoever lists or removes images must get past a broken one.
    """
    found: list[tuple[Manifest, ImageConfig]] = []
    looked_at: set[Digest] = set()  # an index may name another as often as it likes
    waiting = [digest]
    while waiting:
        digest = waiting.pop()
        if digest in looked_at or store.info(digest) is None:
            continue
        looked_at.add(digest)
        try:
            document = parse_manifest_or_index(store.read(digest))
            if isinstance(document, Index):
                named = [e.digest for e in document.manifests if e.platform is None or e.platform.os != "unknown"]
                waiting += reversed(named)
            elif document.config.media_type in CONFIG_TYPES and store.info(document.config.digest) is not None:
                found.append((document, parse_config(store.read(document.config.digest, limit=CONFIG_LIMIT))))
        except InvalidImage:
            continue
    return found
