"""What an image in a registry is, platform by platform: its configs, and what is attested of it.

An attestation is a manifest whose entry in the index names the manifest that it is about; its layers are in-toto
statements, plain or in an envelope. Facts: docker/buildx util/imagetools/loader.go, BuildKit
docs/attestations/attestation-storage.md, in-toto's attestation specification (statement, DSSE envelope).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import trio

from buildengine.digest import Digest
from buildengine.platform import Platform
from buildengine.reference import Reference
from buildengine.values import dataclass
from worker.layers.outcome import one_error
from worker.oci.document import Fields, InvalidImage
from worker.oci.types import (
    CONFIG_LIMIT,
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_config,
)
from worker.registry.puller import Registry

SBOM, PROVENANCE = "https://spdx.dev/Document", "https://slsa.dev/provenance/"
"""How the types of predicates begin."""

_ABOUT = ("com.docker.reference.digest", "vnd.docker.reference.digest")
_STATEMENT = re.compile(r"application/vnd\.in-toto(?:\+json|\..*\+dsse)")
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_STATEMENT_LIMIT = 256 << 20  # the SBOM of a whole distribution has some 30 MB
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """The image for one platform, with the manifests that attest something of it."""

    manifest: Manifest
    attestations: tuple[Manifest, ...] = ()


class Describer:
    """Looks into the image `reference` of `registry`. What is asked for is fetched, nothing else."""

    def __init__(self, registry: Registry, reference: Reference) -> None:
        self._registry = registry
        self._reference = reference

    async def images(self, root: Manifest | Index) -> Mapping[str, PlatformImage]:
        """By platform (`linux/arm64`), in the order of their names. Raises RegistryError, InvalidImage."""
        manifests: dict[Digest, tuple[Descriptor, Manifest]] = {}
        await self._collect(root, root.descriptor, manifests, depth=0)
        about: dict[str, list[Manifest]] = {}
        images: dict[str, Manifest] = {}
        for entry, manifest in manifests.values():
            subject = next((entry.annotations[name] for name in _ABOUT if name in entry.annotations), None)
            if subject is not None:
                about.setdefault(subject, []).append(manifest)
            elif entry.platform is not None:
                images[_name(entry.platform)] = manifest
            elif manifest.config.media_type in CONFIG_TYPES:
                images[_name((await self.config(manifest)).platform)] = manifest
        return {
            platform: PlatformImage(manifest=manifest, attestations=tuple(about.get(manifest.digest, ())))
            for platform, manifest in sorted(images.items())
        }

    async def config(self, manifest: Manifest) -> ImageConfig:
        raw = await self._blob(manifest.config, CONFIG_LIMIT)
        return parse_config(raw, what=f"config of {self._reference.familiar}")

    async def predicates(self, image: PlatformImage, kind: str) -> list[Any]:
        """What is attested of the image in statements of the `kind`, the beginning of a predicate's type."""
        return [
            await self._predicate(layer)
            for attestation in image.attestations
            for layer in attestation.layers
            if _STATEMENT.fullmatch(layer.media_type) and layer.annotations.get(_PREDICATE_TYPE, "").startswith(kind)
        ]

    async def _collect(
        self,
        document: Manifest | Index,
        entry: Descriptor,
        manifests: dict[Digest, tuple[Descriptor, Manifest]],
        *,
        depth: int,
    ) -> None:
        if isinstance(document, Manifest):
            manifests[document.digest] = (entry, document)
            return
        if depth >= _MAX_DEPTH:
            raise InvalidImage(f"{self._reference.familiar}: its indexes are nested more than {_MAX_DEPTH} deep")
        children = [child for child in document.manifests if child.media_type in INDEX_TYPES | MANIFEST_TYPES]
        found: dict[Digest, Manifest | Index] = {}

        async def fetch(child: Descriptor) -> None:
            found[child.digest] = await self._registry.fetch_manifest(self._reference.with_digest(child.digest))

        with one_error():
            async with trio.open_nursery() as nursery:
                for child in children:
                    nursery.start_soon(fetch, child)
        for child in children:
            await self._collect(found[child.digest], child, manifests, depth=depth + 1)

    async def _predicate(self, layer: Descriptor) -> Any:
        what = f"statement {layer.digest} about {self._reference.familiar}"
        fields = Fields.parse(await self._blob(layer, _STATEMENT_LIMIT), what=what, limit=_STATEMENT_LIMIT)
        if layer.media_type.endswith("+dsse"):
            try:
                payload = base64.b64decode(fields.text("payload", most=_STATEMENT_LIMIT), validate=True)
            except binascii.Error:
                raise InvalidImage(f"{what} has a payload that is not base64") from None
            fields = Fields.parse(payload, what=what, limit=_STATEMENT_LIMIT)
        return fields.document.get("predicate")

    async def _blob(self, descriptor: Descriptor, limit: int) -> bytes:
        if descriptor.size > limit:
            raise InvalidImage(
                f"{descriptor.digest} of {self._reference.familiar} has {descriptor.size} bytes, more than {limit}"
            )
        memory = _Memory()
        await self._registry.fetch_blob(descriptor, (self._reference.name,), memory)
        return bytes(memory.data)


class _Memory:
    """A `BlobSink` for small blobs."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: memoryview) -> None:
        self.data += data


def _name(platform: Platform) -> str:
    return str(replace(platform, os_version=""))
