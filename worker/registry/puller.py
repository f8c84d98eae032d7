"""Pulling an image: a reference becomes a digest once, and everything else comes from that digest.

`resolve` asks for the manifest, chooses the platform and reads the config; layers stay where they are until
`fetch_blob` is called for one of them. Mirrors are asked first, the registry itself last; the answers of a
mirror are worth no less, since all but the tag is verified by digest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import trio

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.platform import Platform
from buildengine.reference import Reference, parse_repository
from buildengine.values import dataclass
from worker.layers.outcome import one_error
from worker.oci.choose import MAX_DEPTH, choose, nested_too_deeply, offered
from worker.oci.document import InvalidImage
from worker.oci.types import (
    CONFIG_LIMIT,
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    OCI_INDEX,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    diff_ids_by_layer,
    parse_config,
    parse_manifest_or_index,
)
from worker.registry.client import EndpointClient, blob_path, manifest_path
from worker.registry.download import BlobSink, Download, Progress, check_extent
from worker.registry.errors import Damaged
from worker.registry.hosts import Endpoint, RegistryConfig, endpoints, is_loopback, tls
from worker.registry.patience import retrying
from worker.registry.places import AtUrl, InRepository, Place, usable_urls
from worker.registry.transport import Response, Transport, open_transport
from worker.session import Credentials

_ACCEPT = ", ".join(sorted(MANIFEST_TYPES) + sorted(INDEX_TYPES))
_T = TypeVar("_T")
_MAX_MANIFESTS = 1000  # of one level
_MAX_MANIFEST_BYTES = 64 << 20
_REQUESTS = 8  # small ones at once
# What early tools called a config; read as one by every client of today.
_CONFIG_ALIASES = CONFIG_TYPES | {"application/octet-stream"}

KnownBlobs = Callable[[Digest], bytes | None]
"""Bytes of a manifest or config that are at hand already, by digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteImage:
    """An image in a registry, resolved. `digest` is what the reference named: the first index where there is one.

    `indexes` lead from there to the manifest, more than one where they are nested. `layers` are descriptors with
    their diff IDs, lowest first; `origin` (`host/repository`) is where they are.
    """

    reference: Reference
    digest: Digest
    indexes: tuple[Index, ...]
    manifest: Manifest
    config: ImageConfig
    layers: tuple[tuple[Descriptor, Digest], ...]

    @property
    def index(self) -> Index | None:
        return self.indexes[0] if self.indexes else None

    @property
    def origin(self) -> str:
        return self.reference.name


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTree:
    """All that a reference names: its root and every index and manifest below, with the configs of the images.

    `documents` has the root first; `configs` are by the digest of the manifest, and of images only.
    """

    reference: Reference
    documents: tuple[Manifest | Index, ...]
    configs: Mapping[Digest, ImageConfig]

    @property
    def digest(self) -> Digest:
        return self.documents[0].digest

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        return tuple(document for document in self.documents if isinstance(document, Manifest))


@asynccontextmanager
async def open_registry(config: RegistryConfig, credentials: Credentials) -> AsyncIterator[Registry]:
    """A client for all registries; its connections end with this block."""
    insecure: set[str] = set()
    async with open_transport(lambda host: tls(host, config, insecure), config.proxies.choose) as transport:
        yield Registry(config, credentials, transport, insecure=insecure)


class Registry:
    """What registries offer to a build. Made by `open_registry`; tests may give another transport."""

    def __init__(
        self,
        config: RegistryConfig,
        credentials: Credentials,
        transport: Transport,
        *,
        insecure: set[str] | None = None,
    ) -> None:
        self._config = config
        self._insecure = set() if insecure is None else insecure
        self._credentials = credentials
        self._transport = transport
        self._clients: dict[Endpoint, EndpointClient] = {}
        self._downloads = trio.CapacityLimiter(config.max_downloads)

    def allow_insecure(self, domain: str) -> None:
        """From now on `domain` may have any certificate, or speak plain HTTP (`registry.insecure` of BuildKit)."""
        self._insecure.add(endpoints(domain, self._config)[-1].host)

    async def resolve(
        self,
        reference: Reference,
        platform: Platform,
        *,
        known: KnownBlobs = lambda digest: None,
        expected: Digest | None = None,
    ) -> RemoteImage:
        """The image that `reference` names now, for `platform`. Raises RegistryError, InvalidImage.

        `expected` is the digest that the tag had when it was last seen: then a HEAD request asks first whether
        it still has, and what `known` holds is not sent again. A reference without an index is taken as it is,
        whatever its platform: see `config.platform`.
        """
        root = await self._root(reference, known, expected)
        chosen = await choose(
            root,
            platform,
            document=lambda entry: self._document(reference.with_digest(entry.digest), known, entry),
            config=lambda manifest: self._config_of(reference, manifest, known),
            what=reference.familiar,
        )
        if chosen is None:
            raise RegistryError(
                f"{reference.familiar} has no image for {platform}", hint=f"it offers {offered(root) or 'none'}"
            )
        return RemoteImage(
            reference=reference.with_digest(root.digest),
            digest=root.digest,
            indexes=chosen.indexes,
            manifest=chosen.manifest,
            config=chosen.config,
            layers=diff_ids_by_layer(chosen.manifest, chosen.config),
        )

    async def resolve_all(
        self,
        reference: Reference,
        *,
        known: KnownBlobs = lambda digest: None,
        expected: Digest | None = None,
    ) -> RemoteTree:
        """What `reference` names now, for every platform. Raises RegistryError, InvalidImage. See `resolve`."""
        root = await self._root(reference, known, expected)
        documents: dict[Digest, Manifest | Index] = {root.digest: root}
        level: list[Manifest | Index] = [root]
        for depth in range(MAX_DEPTH + 1):
            children = _children(level, documents, what=reference.familiar)
            if not children:
                break
            if depth == MAX_DEPTH:
                raise nested_too_deeply(reference.familiar)
            level = await _all_of(
                [partial(self._document, reference.with_digest(child.digest), known, child) for child in children]
            )
            documents |= {document.digest: document for document in level}
        images = [d for d in documents.values() if isinstance(d, Manifest) and d.config.media_type in CONFIG_TYPES]
        configs = await _all_of([partial(self._config_of, reference, image, known) for image in images])
        return RemoteTree(
            reference=reference.with_digest(root.digest),
            documents=tuple(documents.values()),
            configs={image.digest: config for image, config in zip(images, configs, strict=True)},
        )

    async def fetch_blob(
        self,
        descriptor: Descriptor,
        origins: Sequence[str],
        sink: BlobSink,
        *,
        on_progress: Progress = lambda digest, current, total: None,
    ) -> None:
        """Write the blob to `sink`, from the first of `origins` that has it. Raises SourceError.

        An origin is `host/repository`, or a URL as the descriptor's own. When this returns, `sink` holds exactly the
        bytes of the descriptor's digest. At most `max_downloads` connections are busy with blobs at once.
        """
        download = Download(descriptor, sink, spare=self._downloads, on_progress=on_progress)
        async with self._downloads:
            await download.run(self.places(descriptor, origins))

    def places(self, descriptor: Descriptor, origins: Sequence[str]) -> Sequence[Place]:
        """As they are tried: the home of a foreign layer is its URLs, that of others a repository."""
        repositories = [parse_repository(origin) for origin in origins if "://" not in origin]
        clients = [(client, repository.path) for repository in repositories for client in self._clients_of(repository)]
        stored: list[Place] = [
            InRepository(client=client, repository=path, descriptor=descriptor, delays=self._delays(client))
            for client, path in clients
        ]
        urls = dict.fromkeys((*descriptor.urls, *(origin for origin in origins if "://" in origin)))
        local = any(is_loopback(client.endpoint.host) for client, _ in clients)
        linked: list[Place] = [
            AtUrl(transport=self._transport, url=url, user_agent=self._config.user_agent, delays=())
            for url in usable_urls(urls, local=local)
        ]
        return linked + stored if descriptor.is_foreign else stored + linked

    def _delays(self, client: EndpointClient) -> tuple[float, ...]:
        """A mirror is not waited for: there is the registry itself; nor TLS where it may do without."""
        endpoint = client.endpoint
        is_not_all = endpoint.is_mirror or (endpoint.host in self._insecure and not endpoint.is_plain)
        return () if is_not_all else self._config.retry_delays

    async def fetch_manifest(
        self, reference: Reference, *, known: KnownBlobs = lambda digest: None
    ) -> Manifest | Index:
        """The document that `reference` names, as it is. Raises RegistryError, InvalidImage."""
        return await self._root(reference, known, None)

    async def _root(self, reference: Reference, known: KnownBlobs, expected: Digest | None) -> Manifest | Index:
        if reference.digest is None and expected is not None and known(expected) is not None:
            with suppress(RegistryError):  # some registries know no HEAD; what else is wrong, GET will say
                current = await self._somewhere(reference, partial(self._head, reference))
                if current == expected:
                    return await self._document(reference.with_digest(current), known)
        return await self._document(reference, known)

    async def _document(
        self, reference: Reference, known: KnownBlobs, descriptor: Descriptor | None = None
    ) -> Manifest | Index:
        what = f"manifest of {reference.familiar}"
        at_hand = known(reference.digest) if reference.digest else None
        if at_hand is not None:
            raw, media_type = at_hand, descriptor.media_type if descriptor else ""
        else:
            raw, media_type = await self._somewhere(reference, partial(self._get_manifest, reference))
        if descriptor is not None and len(raw) != descriptor.size:
            raise InvalidImage(f"{what} has {len(raw)} bytes, its descriptor says {descriptor.size}")
        return parse_manifest_or_index(raw, media_type=media_type, what=what)

    async def _get_manifest(self, reference: Reference, client: EndpointClient) -> tuple[bytes, str]:
        target = reference.digest or reference.tag
        async with client.get(
            reference.path, manifest_path(target), subject=reference.familiar, headers={"accept": _ACCEPT}
        ) as response:
            raw = await _whole(response, MANIFEST_LIMIT, f"manifest of {reference.familiar}")
            media_type = response.headers.get("content-type", "")
            promised = response.headers.get("docker-content-digest", "")
        digest = Digest.sha256(raw)
        wanted = reference.digest or (promised if promised.startswith("sha256:") else digest)
        if digest != wanted:
            raise Damaged(
                f"{client.endpoint.host} sent another manifest for {reference.familiar} than {wanted}: {digest}",
                hint="the registry, a mirror or a proxy on the way altered or damaged the image",
            )
        return raw, media_type

    async def _head(self, reference: Reference, client: EndpointClient) -> Digest | None:
        """The digest of a tag without its manifest; None from a registry that does not tell."""
        path, headers = manifest_path(reference.tag), {"accept": _ACCEPT}
        async with client.request(
            "HEAD", reference.path, path, subject=reference.familiar, headers=headers
        ) as response:
            promised = response.headers.get("docker-content-digest", "")
        return Digest.parse(promised) if promised.startswith("sha256:") else None

    async def _config_of(self, reference: Reference, manifest: Manifest, known: KnownBlobs) -> ImageConfig:
        descriptor = manifest.config
        what = f"config of {reference.familiar}"
        if descriptor.media_type not in _CONFIG_ALIASES:
            raise InvalidImage(f"{reference.familiar} is not an image but {descriptor.media_type[:200]!r}")
        raw = known(descriptor.digest)
        if raw is None:
            raw = await self.fetch_config(reference, descriptor)
        return parse_config(raw, what=what)

    async def fetch_config(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A blob that a manifest of `reference` is about, whatever it holds. Raises RegistryError, InvalidImage."""
        if descriptor.size > CONFIG_LIMIT:
            raise InvalidImage(
                f"config of {reference.familiar} claims {descriptor.size} bytes, more than the {CONFIG_LIMIT} allowed"
            )
        return await self._somewhere(reference, partial(self._get_config, reference, descriptor))

    async def fetch_document(self, reference: Reference, path: str, *, what: str) -> bytes:
        """The small document at `path` below the repository, unverified. Raises RegistryError."""

        async def get(client: EndpointClient) -> bytes:
            async with client.get(reference.path, path, subject=what, headers={"accept": OCI_INDEX}) as response:
                return await _whole(response, MANIFEST_LIMIT, what)

        return await self._somewhere(reference, get)

    async def _get_config(self, reference: Reference, descriptor: Descriptor, client: EndpointClient) -> bytes:
        subject = f"config of {reference.familiar}"
        async with client.get(reference.path, blob_path(descriptor.digest), subject=subject) as response:
            check_extent(response, 0, descriptor.size, descriptor.size, subject=f"{client.endpoint.host}: {subject}")
            raw = await _whole(response, descriptor.size, subject)
        if Digest.sha256(raw) != descriptor.digest:
            raise Damaged(f"{client.endpoint.host}: {subject} is not {descriptor.digest}")
        return raw

    async def _somewhere(self, reference: Reference, ask: Callable[[EndpointClient], Awaitable[_T]]) -> _T:
        """What the first endpoint that can answer says; when none can, what the registry itself said."""
        failure: SourceError | None = None
        for client in self._clients_of(reference):
            try:
                return await retrying(partial(ask, client), self._delays(client))
            except SourceError as error:
                failure = error
        assert failure is not None
        raise failure

    def _clients_of(self, reference: Reference) -> Iterator[EndpointClient]:
        found = endpoints(reference.domain, self._config)
        if found[-1].host in self._insecure and not found[-1].is_plain:
            found = (*found, replace(found[-1], base=found[-1].base.replace("https://", "http://", 1)))
        for endpoint in found:
            if endpoint not in self._clients:
                self._clients[endpoint] = EndpointClient.of(
                    endpoint, self._transport, self._credentials, self._config.user_agent
                )
            yield self._clients[endpoint]


def _children(level: Iterable[Manifest | Index], known: Collection[Digest], *, what: str) -> tuple[Descriptor, ...]:
    """What the indexes among `level` name and is not `known`. Raises InvalidImage for more than anybody means."""
    found = {
        entry.digest: entry
        for document in level
        if isinstance(document, Index)
        for entry in document.manifests
        if entry.media_type in INDEX_TYPES | MANIFEST_TYPES and entry.digest not in known
    }
    if len(found) > _MAX_MANIFESTS or sum(entry.size for entry in found.values()) > _MAX_MANIFEST_BYTES:
        raise InvalidImage(f"{what} names {len(found)} manifests, more than can be meant")
    return tuple(found.values())


async def _all_of(jobs: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
    """What the jobs return, in their order; a few are under way at once. Raises the first error."""
    limiter = trio.CapacityLimiter(_REQUESTS)
    results: dict[int, _T] = {}

    async def run(position: int, job: Callable[[], Awaitable[_T]]) -> None:
        async with limiter:
            results[position] = await job()

    with one_error():
        async with trio.open_nursery() as nursery:
            for position, job in enumerate(jobs):
                nursery.start_soon(run, position, job)
    return [results[position] for position in range(len(jobs))]


async def _whole(response: Response, limit: int, what: str) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RegistryError(f"{what} came in a content encoding that was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise RegistryError(f"{what} announces {length[:40]} bytes, more than the {limit} allowed")
    return await response.read(limit)
