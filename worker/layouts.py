"""Images of a client's OCI layouts: read by digest, and everything verified. Layers are copied when they are needed.

Facts: BuildKit source/containerimage/ocilayout.go (a digest is needed; the store is what the source names).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.platform import Platform
from worker.oci.choose import Chosen, choose, offered
from worker.oci.document import InvalidImage
from worker.oci.types import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_config,
    parse_manifest_or_index,
)
from worker.session import BlobSource, Layouts
from worker.sources.origin import LayoutOrigin

Progress = Callable[[Digest, int, int], None]


class Writer(Protocol):
    """`digest` is of what was written so far."""

    @property
    def digest(self) -> Digest: ...

    def write(self, data: memoryview, /) -> object: ...


class LayoutReader:
    """The image that `origin` names, out of one of `layouts`: its documents too, whatever the store has."""

    def __init__(self, origin: LayoutOrigin, layouts: Layouts) -> None:
        name, at, digest = origin.reference.partition("@")
        if not at:
            raise UserError(f'reference "{origin.reference}" must have digest', hint="write oci-layout://NAME@DIGEST")
        self.digest = Digest.parse(digest)
        self.source = layouts.find(origin.store or name, origin.session)
        self._reference = origin.reference

    async def choose(self, platform: Platform) -> Chosen:
        """What there is for `platform`. Raises SourceError."""
        what = self._reference
        root = await self._parsed(self.digest)
        chosen = await choose(root, platform, document=self._document, config=self._config, what=what)
        if chosen is None:
            raise SourceError(f"{what} has no image for {platform}", hint=f"it offers {offered(root) or 'none'}")
        return chosen

    async def _document(self, descriptor: Descriptor) -> Manifest | Index:
        return await self._parsed(descriptor.digest, descriptor.media_type)

    async def _parsed(self, digest: Digest, media_type: str = "") -> Manifest | Index:
        raw = await self._whole(digest, MANIFEST_LIMIT)
        return parse_manifest_or_index(raw, media_type=media_type, what=f"manifest {digest} of {self._reference}")

    async def _config(self, manifest: Manifest) -> ImageConfig:
        raw = await self._whole(manifest.config.digest, CONFIG_LIMIT)
        return parse_config(raw, what=f"config of {self._reference}")

    async def _whole(self, digest: Digest, limit: int) -> bytes:
        data = bytearray()
        async with self.source.open(digest) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > limit:
                    raise InvalidImage(f"{digest} of {self._reference} has more than the {limit} bytes allowed")
        raw = bytes(data)
        if Digest.sha256(raw) != digest:
            raise InvalidImage(f"{digest} of {self._reference} holds other bytes", hint="the layout is damaged")
        return raw


async def copy_blob(source: BlobSource, descriptor: Descriptor, writer: Writer, on_progress: Progress) -> None:
    """One blob from `source` to `writer`. Raises SourceError when it is not what the descriptor says."""
    at = 0
    async with source.open(descriptor.digest) as pieces:
        async for piece in pieces:
            at += len(piece)
            if at > descriptor.size:
                raise SourceError(
                    f"blob {descriptor.digest} of an OCI layout has more than its {descriptor.size} bytes"
                )
            writer.write(memoryview(piece))
            on_progress(descriptor.digest, at, descriptor.size)
    if at < descriptor.size:
        raise SourceError(f"blob {descriptor.digest} of an OCI layout ended after {at} of {descriptor.size} bytes")
    if writer.digest != descriptor.digest:
        raise SourceError(f"blob {descriptor.digest} of an OCI layout holds other bytes", hint="the layout is damaged")
