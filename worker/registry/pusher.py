"""Pushing an image: its blobs, then its manifests, children before the index that names them, then its tags.

What is pushed comes from a `Content`, the local store or another registry; this module knows neither. A blob that
the repository has is not sent; one that another repository of the same registry has is mounted; nothing is sent
twice by one `Pusher`. A mirror is never pushed to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import trio

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.reference import Reference, parse_repository
from buildengine.values import dataclass
from worker.layers.outcome import one_error
from worker.oci.document import InvalidImage
from worker.oci.types import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    parse_manifest_or_index,
)
from worker.registry.client import PUSH, EndpointClient, manifest_path
from worker.registry.errors import RegistryRefused, deserves_retry
from worker.registry.hosts import Endpoint, RegistryConfig, endpoints, tls
from worker.registry.patience import retrying
from worker.registry.transport import Transport, open_transport
from worker.registry.upload import BlobFile, BlobReader, BlobUpload, Progress
from worker.session import Credentials

__all__ = ["BlobFile", "BlobReader", "Content", "Plan", "Pusher", "open_pusher", "read_plan"]

_UPLOADS = 4  # bodies under way at once, as BuildKit's (util/resolver/limited)
_BEGUN = 8  # uploads for which there is a session: a registry that syncs other blobs may take 70 ms to open one
_REQUESTS = 16  # small requests at once
_MAX_MOUNTS = 3  # repositories that are tried as the source of a blob
_MAX_DEPTH = 3
_BLOB_IS_MISSING = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_T = TypeVar("_T")

Stage = Callable[[str], AbstractContextManager[object]]
"""Entered for as long as a part of the work lasts; its argument is what BuildKit calls that part."""


class Content(Protocol):
    """Where what is pushed comes from."""

    async def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or an index. Raises BuildError when it is not to be had."""
        ...

    def origins(self, digest: Digest) -> Sequence[str]:
        """Repositories, `host/path`, that are known to hold the blob."""
        ...

    def open(self, descriptor: Descriptor) -> AbstractAsyncContextManager[BlobReader | BlobFile]:
        """The blob, to be sent: called only when no registry has it already."""
        ...

    async def pushed(self, digest: Digest, repository: str) -> None:
        """The blob is in `repository` (`host/path`) now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an image consists of. `blobs` has no digest twice; below `root`, children come before their parents."""

    root: Manifest | Index
    below: tuple[Manifest | Index, ...]
    blobs: tuple[Descriptor, ...]


async def read_plan(root: Descriptor, content: Content) -> Plan:
    """All that `root` leads to. Layers that nobody may distribute are left out. Raises InvalidImage."""
    documents: dict[Digest, Manifest | Index] = {}
    blobs: dict[Digest, Descriptor] = {}

    async def read(descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in documents:
            return
        raw = await content.document(descriptor)
        document = parse_manifest_or_index(raw, media_type=descriptor.media_type)
        if document.digest != descriptor.digest:
            raise InvalidImage(
                f"manifest {descriptor.digest} is not what it is called: its digest is {document.digest}"
            )
        for child in document.manifests if isinstance(document, Index) else ():
            if child.media_type not in INDEX_TYPES | MANIFEST_TYPES:
                blobs.setdefault(child.digest, child)
            elif depth >= _MAX_DEPTH:
                raise InvalidImage(f"index {root.digest}: it is nested more than {_MAX_DEPTH} deep")
            else:
                await read(child, depth + 1)
        for blob in (document.config, *document.layers) if isinstance(document, Manifest) else ():
            if not blob.is_foreign:  # it comes from where its `urls` say
                blobs.setdefault(blob.digest, blob)
        documents[descriptor.digest] = document

    await read(root, 0)
    *below, top = documents.values()
    return Plan(root=top, below=tuple(below), blobs=tuple(blobs.values()))


def mount_sources(origins: Sequence[str], target: Reference) -> tuple[str, ...]:
    """The repositories of the same registry to mount from, the most closely related first (as containerd's)."""
    parsed = (parse_repository(origin) for origin in dict.fromkeys(origins) if "://" not in origin)
    paths = [origin.path for origin in parsed if origin.domain == target.domain and origin.path != target.path]
    paths.sort(key=lambda path: -_common(path.split("/"), target.path.split("/")))  # stable: the newest first
    return tuple(paths[:_MAX_MOUNTS])


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))


@asynccontextmanager
async def open_pusher(
    config: RegistryConfig, credentials: Credentials, *, insecure: Collection[str] = ()
) -> AsyncIterator[Pusher]:
    """A client that pushes; its connections end with this block.

    The registries `insecure` (`registry.insecure` of BuildKit) may have any certificate, or speak plain HTTP.
    """
    async with open_transport(lambda host: tls(host, config, insecure), config.proxies.choose) as transport:
        yield Pusher(config, credentials, transport, insecure=insecure)


class Pusher:
    """Made by `open_pusher`. Safe to use from many tasks at once."""

    def __init__(
        self, config: RegistryConfig, credentials: Credentials, transport: Transport, *, insecure: Collection[str] = ()
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._transport = transport
        self._insecure = insecure
        self._clients: dict[str, EndpointClient] = {}
        self._held: dict[tuple[str, Digest], list[str]] = defaultdict(list)  # (registry, blob) -> repositories
        self._locks: dict[object, trio.Lock] = defaultdict(trio.Lock)
        self._begun = trio.CapacityLimiter(_BEGUN)
        self._uploads = trio.CapacityLimiter(_UPLOADS)
        self._requests = trio.CapacityLimiter(_REQUESTS)

    async def push(
        self,
        root: Descriptor,
        content: Content,
        destinations: Sequence[Reference],
        *,
        stage: Stage = nullcontext,
        on_progress: Progress = lambda digest, current, total: None,
    ) -> None:
        """Push the image below `root` (a manifest or an index) under each of `destinations`.

        A destination has a tag, or none: then the image is pushed by its digest. Raises BuildError.
        """
        plan = await read_plan(root, content)
        for repository in dict.fromkeys(replace(name, tag="", digest=None) for name in destinations):
            names = [name for name in destinations if name.name == repository.name]
            target = _Target(repository, await self._client(repository), plan, content, on_progress)
            await self._push(target, names, stage)

    async def _push(self, target: _Target, names: Sequence[Reference], stage: Stage) -> None:
        with stage("pushing layers"):
            await self._blobs(target)
        for name in dict.fromkeys(names):
            shown = replace(name, digest=target.plan.root.digest)
            with stage(f"pushing manifest for {shown}"):
                try:
                    await self._manifests(target, name.tag)
                except RegistryRefused as error:
                    if error.code not in _BLOB_IS_MISSING:
                        raise
                    # It said that it had what it has not: nothing that it says is believed a second time.
                    await self._blobs(target, believing=False)
                    await self._manifests(target, name.tag, believing=False)

    async def _client(self, repository: Reference) -> EndpointClient:
        async with self._locks[repository.domain]:
            if repository.domain not in self._clients:
                endpoint = endpoints(repository.domain, self._config)[-1]  # itself: the mirrors come before
                client = self._client_of(endpoint)
                if endpoint.host in self._insecure and not endpoint.is_plain and not await self._speaks_tls(client):
                    client = self._client_of(replace(endpoint, base=endpoint.base.replace("https://", "http://", 1)))
                self._clients[repository.domain] = client
        return self._clients[repository.domain]

    def _client_of(self, endpoint: Endpoint) -> EndpointClient:
        return EndpointClient.of(endpoint, self._transport, self._credentials, self._config.user_agent)

    async def _speaks_tls(self, client: EndpointClient) -> bool:
        try:
            async with self._transport.send("GET", client.endpoint.base + "/", {}):
                return True
        except SourceError:
            return False  # what else may be wrong, the plain attempt will say

    # --- blobs -----------------------------------------------------------------------------------------------

    async def _blobs(self, target: _Target, *, believing: bool = True) -> None:
        with one_error():
            async with trio.open_nursery() as nursery:
                for descriptor in target.plan.blobs:
                    nursery.start_soon(partial(self._blob, target, descriptor, believing=believing))

    async def _blob(self, target: _Target, descriptor: Descriptor, *, believing: bool) -> None:
        """Whoever wants the same blob in the same registry waits here, and then finds it."""
        key, path = (target.repository.domain, descriptor.digest), target.repository.path
        async with self._locks[key]:
            held = self._held[key]
            if path in held and believing:
                return
            place = _Place(self._begun, self._uploads)
            upload = BlobUpload(
                target.client,
                path,
                descriptor,
                delays=self._config.retry_delays,
                on_progress=place.left_with(target.on_progress),
                turn=place.turn,
            )
            if not (believing and await self._is_there(target, upload, descriptor, held)):
                async with place, target.content.open(descriptor) as reader:
                    await upload.send(reader)
            if path not in held:
                held.append(path)
        await target.content.pushed(descriptor.digest, target.repository.name)

    async def _is_there(self, target: _Target, upload: BlobUpload, descriptor: Descriptor, held: Sequence[str]) -> bool:
        """Whether the repository has the blob, if need be by taking it from another one."""
        here = [f"{target.repository.domain}/{path}" for path in held]
        async with self._requests:
            if await upload.exists():
                return True
            known = (*here, *target.content.origins(descriptor.digest))
            return await upload.mount(mount_sources(known, target.repository))

    # --- manifests -------------------------------------------------------------------------------------------

    async def _manifests(self, target: _Target, tag: str, *, believing: bool = True) -> None:
        single = [document for document in target.plan.below if isinstance(document, Manifest)]
        with one_error():
            async with trio.open_nursery() as nursery:
                for manifest in single:
                    nursery.start_soon(partial(self._document, target, manifest, "", believing=believing))
        for document in target.plan.below:
            if isinstance(document, Index):
                await self._document(target, document, "", believing=believing)
        await self._document(target, target.plan.root, tag, believing=believing)

    async def _document(self, target: _Target, document: Manifest | Index, tag: str, *, believing: bool) -> None:
        """Put a manifest or an index, unless it is there already under that very name."""
        path = manifest_path(tag or document.digest)
        async with self._requests:
            if believing and await self._retrying(partial(_has, target, document, path)):
                return
            await self._retrying(partial(_put, target, document, path))

    async def _retrying(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        return await retrying(attempt, self._config.retry_delays)


class _Place:
    """A place among the uploads that have begun, and after `turn` among the bodies that are under way: left when all of
    the body has gone, at the end of the block at last.

    While a registry checks and stores what came, which may take it as long as the way did, it is sent the next, and has
    a session for that already.
    """

    def __init__(self, begun: trio.CapacityLimiter, bodies: trio.CapacityLimiter) -> None:
        self._begun = begun
        self._bodies = bodies
        self._taken: list[trio.CapacityLimiter] = []

    async def __aenter__(self) -> None:
        await self._take(self._begun)

    async def turn(self) -> None:
        """What has to be sent once more after its place was left needs none."""
        if self._taken == [self._begun]:
            await self._take(self._bodies)

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    async def _take(self, limiter: trio.CapacityLimiter) -> None:
        await limiter.acquire_on_behalf_of(self)
        self._taken.append(limiter)

    def _leave(self) -> None:
        while self._taken:
            self._taken.pop().release_on_behalf_of(self)

    def left_with(self, on_progress: Progress) -> Progress:
        """`on_progress`, at whose end the place is left."""

        def watched(digest: Digest, current: int, total: int) -> None:
            on_progress(digest, current, total)
            if current == total:
                self._leave()

        return watched


class _Target:
    """One image on its way into one repository."""

    def __init__(
        self, repository: Reference, client: EndpointClient, plan: Plan, content: Content, on_progress: Progress
    ) -> None:
        self.repository = repository
        self.client = client
        self.plan = plan
        self.content = content
        self.on_progress = on_progress


async def _has(target: _Target, document: Manifest | Index, path: str) -> bool:
    headers = {"accept": document.media_type}
    subject = f"manifest of {target.repository.name}"
    try:
        async with target.client.request(
            "HEAD", target.repository.path, path, subject=subject, actions=PUSH, headers=headers
        ) as response:
            return response.headers.get("docker-content-digest") == document.digest
    except RegistryRefused as error:
        if deserves_retry(error):
            raise
        return False  # the PUT will say what is wrong


async def _put(target: _Target, document: Manifest | Index, path: str) -> None:
    subject = f"manifest {document.digest} of {target.repository.name}"
    headers = {"content-type": document.media_type}
    async with target.client.request(
        "PUT",
        target.repository.path,
        path,
        subject=subject,
        actions=PUSH,
        headers=headers,
        body=document.raw,
    ) as response:
        stored = response.headers.get("docker-content-digest", str(document.digest))
    if stored != document.digest:
        raise RegistryError(
            f"{target.client.endpoint.host} stored another manifest than {document.digest}: {stored[:100]}",
            hint="the registry, or a proxy on the way, altered the image: do not use it",
        )
