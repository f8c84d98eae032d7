"""Images that lie in registries as something to push: read from there and sent on, without a store between.

What a document refers to lies where the document lies. Small documents are asked for once; a blob is opened only
when its new registry neither has it nor can mount it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import trio

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.reference import parse_repository
from worker.layers.outcome import one_error
from worker.oci.types import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest
from worker.registry.download import check_extent
from worker.registry.patience import Patience
from worker.registry.places import Place
from worker.registry.puller import Registry
from worker.registry.transport import Unreachable


class RemoteContent:
    """`worker.registry.pusher.Content` out of the repositories of `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._documents: dict[Digest, bytes] = {}
        self._repositories: dict[Digest, list[str]] = defaultdict(list)

    def add(self, document: Manifest | Index, repository: str) -> None:
        """`document` is known, and what it refers to is in `repository` (`host/path`)."""
        self._documents[document.digest] = document.raw
        parts = document.manifests if isinstance(document, Index) else (document.config, *document.layers)
        for part in parts:
            if repository not in self._repositories[part.digest]:
                self._repositories[part.digest].append(repository)

    async def add_made(self, document: Manifest | Index) -> None:
        """A document that is in no registry yet, made of what is.

        What it refers to is asked for at once: the pusher takes one after the other. Raises SourceError.
        """
        self._documents[document.digest] = document.raw
        with one_error():
            async with trio.open_nursery() as nursery:
                for child in document.manifests if isinstance(document, Index) else ():
                    if child.media_type in INDEX_TYPES | MANIFEST_TYPES:
                        nursery.start_soon(self.document, child)

    async def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.digest not in self._documents:
            failure: SourceError = RegistryError(f"no registry is known to hold manifest {descriptor.digest}")
            for repository in self._repositories[descriptor.digest]:
                name = parse_repository(repository).with_digest(descriptor.digest)
                try:
                    self.add(await self._registry.fetch_manifest(name), repository)
                    break
                except SourceError as error:
                    failure = error
            else:
                raise failure
        return self._documents[descriptor.digest]

    def origins(self, digest: Digest) -> Sequence[str]:
        return tuple(self._repositories[digest])

    @asynccontextmanager
    async def open(self, descriptor: Descriptor) -> AsyncIterator[RemoteBlob]:
        yield RemoteBlob(descriptor, self._registry.places(descriptor, self.origins(descriptor.digest)))

    async def pushed(self, digest: Digest, repository: str) -> None:
        """Nobody needs to know."""


class RemoteBlob:
    """`worker.registry.pusher.BlobReader` of a blob at the first of `places` that has it."""

    def __init__(self, descriptor: Descriptor, places: Sequence[Place]) -> None:
        self._descriptor = descriptor
        self._places = places

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """The bytes from `start` to `end`. What breaks off is gone on with, from there or from the next place."""
        failure: SourceError = RegistryError(f"no registry is known to hold {self._descriptor.digest}")
        for place in self._places:
            patience = Patience(place.delays)
            try:
                while start < end:
                    before = start
                    try:
                        async with aclosing(self._attempt(place, start, end)) as pieces:
                            async for piece in pieces:
                                start += len(piece)
                                yield piece
                    except SourceError as error:
                        await patience.wait_after(error, moved=start - before)
                return
            except SourceError as error:
                failure = error
        raise failure

    async def _attempt(self, place: Place, start: int, end: int) -> AsyncGenerator[bytes]:
        size = self._descriptor.size
        is_part = (start, end) != (0, size)
        headers = {"range": f"bytes={start}-{end - 1}"} if is_part else {}
        async with place.open(headers) as response:
            position = check_extent(response, start if is_part else 0, end, size, subject=place.name)
            async with aclosing(response.chunks()) as chunks:
                async for chunk in chunks:
                    if position + len(chunk) > size:
                        raise RegistryError(f"{place.name} is longer than its {size} bytes")
                    piece = chunk[max(start - position, 0) : max(end - position, 0)]
                    position += len(chunk)
                    if piece:
                        yield piece
                    if position >= end:
                        return  # a server that ignores ranges would go on
        raise Unreachable(f"{place.name} ended after {position} of {size} bytes")
