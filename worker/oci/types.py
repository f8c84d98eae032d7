"""Descriptors, manifests, indexes and image configs as frozen values that keep the bytes they were read from.

Identity is the bytes received, never a re-serialisation: `raw` is what was hashed. Every document comes from
outside and is not believed: it is bounded before it is parsed, each field is checked as it is read, and an
`InvalidImage` says which field of which document is wrong.

Facts: OCI image-spec 1.1 (descriptor.md, manifest.md, image-index.md, config.md), Docker's image manifest
version 2 schema 2. Schema 1 is refused: it has neither config nor uncompressed digests. A document that is both
manifest and index is refused (image-spec GHSA-77vh-xpmg-72qh: two readers would see two images).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from buildengine.digest import Digest
from buildengine.platform import Platform, normalize
from buildengine.values import dataclass
from worker.oci.document import Fields, InvalidImage

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_LAYER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

MANIFEST_LIMIT = 4 << 20  # distribution-spec: registries SHOULD enforce some limit, SHOULD accept up to 4 MiB
CONFIG_LIMIT = 8 << 20
_FOREIGN = (".foreign.", "nondistributable")
_MAX_SIZE = 1 << 50
_MAX_ENTRIES = 10_000
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Names one blob: what it is, its digest, its exact size."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether a layer's home is its URLs, by its media type (image-spec, layer.md, "Non-Distributable Layers")."""
        return any(word in self.media_type for word in _FOREIGN)

    def to_json(self) -> dict[str, Any]:
        """As Go's `ocispec.Descriptor` is written: its field order, maps sorted, empty fields left out."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            document["platform"] = self.platform.to_json()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: a config and the layers, lowest first."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    artifact_type: str = ""

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Manifests (or further indexes) for several platforms under one digest."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image config says about itself; `document` is all of it, for whoever knows the rest.

    Treat `document` as read-only. `diff_ids` are the layers' uncompressed digests, lowest first.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    platform: Platform
    diff_ids: tuple[Digest, ...]
    document: Mapping[str, Any] = field(repr=False, hash=False, compare=False)


def parse_descriptor(fields: Fields) -> Descriptor:
    """The descriptor at this place of a document."""
    platform = fields.optional("platform")
    return Descriptor(
        media_type=fields.text("mediaType"),
        digest=fields.digest("digest"),
        size=fields.integer("size", most=_MAX_SIZE),
        urls=tuple(fields.texts("urls")),
        annotations=fields.strings("annotations"),
        platform=None if platform is None else _platform(platform),
        artifact_type=fields.text("artifactType", default=""),
    )


def parse_manifest_or_index(raw: bytes, *, media_type: str = "", what: str = "manifest") -> Manifest | Index:
    """The document that `raw` is. `media_type` is what its sender called it ("" when nobody said).

    Raises InvalidImage. The type is the document's own `mediaType`, else the sender's, else what its fields
    show it to be; where both speak they must agree.
    """
    fields = Fields.parse(raw, what=what, limit=MANIFEST_LIMIT)
    declared = fields.text("mediaType", default="")
    sent = media_type.partition(";")[0].strip().lower()
    if declared in DOCKER_SCHEMA1 or sent in DOCKER_SCHEMA1 or fields.integer("schemaVersion", default=0) == 1:
        raise InvalidImage(
            f"{what} is a Docker schema 1 manifest, a format that was withdrawn",
            hint="push the image again with a current tool to convert it",
        )
    known = INDEX_TYPES | MANIFEST_TYPES
    if sent in known and declared and declared != sent:
        raise InvalidImage(f"{what} calls itself {declared!r} but was sent as {sent!r}")
    has_manifests, has_layers = fields.has("manifests"), fields.has("layers") or fields.has("config")
    if has_manifests and has_layers:
        raise InvalidImage(f"{what} claims to be both an image manifest and an index")
    guessed = OCI_INDEX if has_manifests else OCI_MANIFEST
    kind = declared or (sent if sent in known else guessed)
    if kind in INDEX_TYPES and not has_layers:
        return _index(fields, raw, kind)
    if kind in MANIFEST_TYPES and not has_manifests:
        return _manifest(fields, raw, kind)
    raise InvalidImage(f"{what} has the media type {kind[:200]!r}, which is not that of an image")


def parse_manifest(raw: bytes, *, media_type: str = "", what: str = "manifest") -> Manifest:
    """As `parse_manifest_or_index`, where only a manifest will do."""
    parsed = parse_manifest_or_index(raw, media_type=media_type, what=what)
    if not isinstance(parsed, Manifest):
        raise InvalidImage(f"{what} is an index where an image manifest is needed")
    return parsed


def parse_config(raw: bytes, *, what: str = "image config") -> ImageConfig:
    """The parts of an image config that the engine needs, checked. Raises InvalidImage."""
    fields = Fields.parse(raw, what=what, limit=CONFIG_LIMIT)
    rootfs = fields.optional("rootfs")
    fields.optional("config")  # both of these are only looked at: whoever reads them later finds what he expects
    for _entry in fields.objects("history", most=_MAX_ENTRIES):
        pass
    return ImageConfig(
        raw=raw,
        digest=Digest.sha256(raw),
        platform=_platform(fields),
        diff_ids=() if rootfs is None else tuple(rootfs.digests("diff_ids", most=_MAX_ENTRIES)),
        document=MappingProxyType(fields.document),
    )


def diff_ids_by_layer(manifest: Manifest, config: ImageConfig) -> tuple[tuple[Descriptor, Digest], ...]:
    """Each layer with its uncompressed digest. Raises InvalidImage when manifest and config disagree."""
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidImage(
            f"manifest {manifest.digest} has {len(manifest.layers)} layers, its config names {len(config.diff_ids)}"
        )
    return tuple(zip(manifest.layers, config.diff_ids, strict=True))


def _index(fields: Fields, raw: bytes, media_type: str) -> Index:
    return Index(
        raw=raw,
        digest=Digest.sha256(raw),
        media_type=media_type,
        manifests=tuple(parse_descriptor(entry) for entry in fields.objects("manifests", most=_MAX_ENTRIES)),
        annotations=fields.strings("annotations"),
    )


def _manifest(fields: Fields, raw: bytes, media_type: str) -> Manifest:
    return Manifest(
        raw=raw,
        digest=Digest.sha256(raw),
        media_type=media_type,
        config=parse_descriptor(fields.required("config")),
        layers=tuple(parse_descriptor(entry) for entry in fields.objects("layers", most=_MAX_ENTRIES)),
        annotations=fields.strings("annotations"),
        artifact_type=fields.text("artifactType", default=""),
    )


def _platform(fields: Fields) -> Platform:
    return normalize(
        Platform(
            os=fields.text("os", default="", most=256),
            architecture=fields.text("architecture", default="", most=256),
            variant=fields.text("variant", default="", most=256),
            os_version=fields.text("os.version", default="", most=256),
            os_features=tuple(fields.texts("os.features")),
        )
    )
