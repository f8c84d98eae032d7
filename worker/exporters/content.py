"""What is pushed, out of the local store: `worker.registry.pusher.Content`.

A layer that is still in its registry only is fetched into the store when its bytes are needed after all: when the
target has it neither in the repository nor in another one that it could be mounted from.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from buildengine.digest import Digest
from buildengine.errors import SourceError, StoreError
from cache.layers import Layer
from cache.opened import Cache
from worker.oci.types import Descriptor
from worker.registry.pusher import BlobFile, BlobReader, Content

if TYPE_CHECKING:
    from worker.trees import BlobFetcher


class StoredContent:
    """The blobs of `cache`. `lazy` are the layers of this image that may not be there yet, by their blob.

    `elsewhere` has what the store lacks of an image of which only some platforms were pulled.
    """

    def __init__(
        self,
        cache: Cache,
        fetcher: BlobFetcher,
        *,
        lazy: Mapping[Digest, Layer] | None = None,
        elsewhere: Content | None = None,
    ) -> None:
        self._cache = cache
        self._fetcher = fetcher
        self._lazy = lazy or {}
        self._elsewhere = elsewhere

    async def document(self, descriptor: Descriptor) -> bytes:
        if self._cache.store.info(descriptor.digest) is not None:
            return self._cache.store.read(descriptor.digest)
        try:
            if self._elsewhere is not None:
                return await self._elsewhere.document(descriptor)
        except SourceError as error:
            reason = f": {error.message}"
        else:
            reason = ""
        named = f" for {descriptor.platform}" if descriptor.platform else ""
        raise StoreError(
            f"the manifest{named}, {descriptor.digest}, is not in the store{reason}",
            hint="pull all platforms of the image: pybuild pull --all-platforms",
        )

    def origins(self, digest: Digest) -> Sequence[str]:
        lazy = self._lazy.get(digest)
        first = lazy.remote.origins if lazy is not None and lazy.remote is not None else ()
        last = self._elsewhere.origins(digest) if self._elsewhere is not None else ()
        return tuple(dict.fromkeys((*first, *self._cache.layers.origins(digest), *last)))

    @asynccontextmanager
    async def open(self, descriptor: Descriptor) -> AsyncIterator[BlobReader | BlobFile]:
        digest, store = descriptor.digest, self._cache.store
        if store.info(digest) is None:
            layer = self._lazy.get(digest) or self._cache.layers.of_blob(digest)
            if layer is not None:
                await self._fetcher.fetch(layer)
        if store.info(digest) is None:
            if self._elsewhere is None:
                raise StoreError(f"blob {digest} is not in the store", hint="build, pull or load the image again")
            async with self._elsewhere.open(descriptor) as reader:
                yield reader
            return
        fd = os.open(store.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield BlobFile(file=fd)
        finally:
            os.close(fd)

    async def pushed(self, digest: Digest, repository: str) -> None:
        await self._cache.layers.add_origin(digest, repository)
