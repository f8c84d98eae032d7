"""A manifest on its way in: whether it may, what it needs in its repository, and how it is listed as a referrer.

Facts: distribution-spec, "Pushing Manifests", "Listing Referrers"; image-spec manifest.md and image-index.md. The
bytes are kept as they came; they are only read here. Pure.
"""

from __future__ import annotations

from buildengine.digest import Digest
from buildengine.values import dataclass
from cache.served import Referral, ServedManifest
from worker.oci import jsonbytes
from worker.oci.document import Fields, InvalidImage
from worker.oci.types import (
    INDEX_TYPES,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    parse_descriptor,
    parse_manifest_or_index,
)
from worker.registry.server.answers import Code, Refusal

LIMIT = MANIFEST_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A manifest that is well formed, and what has to be in its repository before it."""

    manifest: ServedManifest
    needs: tuple[Referral, ...]


def read(raw: bytes, *, media_type: str, digest: Digest | None) -> Incoming:
    """The manifest that `raw` is, sent as `media_type` under `digest` (None: under a tag). Raises Refusal."""
    actual = Digest.sha256(raw)
    if digest is not None and digest != actual:
        message = "the manifest's bytes are not those of the digest in the path"
        raise Refusal(Code.DIGEST_INVALID, message, detail={"expected": digest, "actual": actual})
    sent = media_type.partition(";")[0].strip().lower()
    try:
        parsed = parse_manifest_or_index(raw, media_type=sent)
        fields = Fields.parse(raw, what="manifest", limit=LIMIT)
        subject = fields.optional("subject")
        about = None if subject is None else parse_descriptor(subject).digest
        artifact_type = fields.text("artifactType", default="", most=256)
    except InvalidImage as error:
        raise Refusal(Code.MANIFEST_INVALID, error.message) from error
    if sent and sent != parsed.media_type:
        message = f"sent as {sent[:200]!r}, but it is {parsed.media_type!r}"
        raise Refusal(Code.MANIFEST_INVALID, message)
    if not artifact_type and isinstance(parsed, Manifest):
        artifact_type = parsed.config.media_type  # "MUST be set to the config descriptor mediaType value"
    manifest = ServedManifest(
        digest=actual,
        size=len(raw),
        media_type=parsed.media_type,
        subject=about,
        artifact_type=artifact_type,
        descriptor="" if about is None else _listed(parsed, artifact_type),
    )
    return Incoming(manifest=manifest, needs=_needs(parsed))


def _needs(parsed: Manifest | Index) -> tuple[Referral, ...]:
    """What must be there first; the subject need not ("allowing clients to push ... in either order").

    Layers that may not be distributed stay where their URLs lead (image-spec, layer.md#non-distributable-layers).
    """
    if isinstance(parsed, Manifest):
        wanted = (parsed.config, *(layer for layer in parsed.layers if not layer.is_foreign))
        return tuple(Referral(digest=one.digest, size=one.size, is_manifest=False) for one in wanted)
    return tuple(Referral(digest=one.digest, size=one.size, is_manifest=_is_manifest(one)) for one in parsed.manifests)


def _is_manifest(entry: Descriptor) -> bool | None:
    """An index of a build cache lists layers, so an entry of another type may be a blob or a manifest."""
    return True if entry.media_type in INDEX_TYPES | MANIFEST_TYPES else None


def _listed(parsed: Manifest | Index, artifact_type: str) -> str:
    descriptor = Descriptor(
        media_type=parsed.media_type,
        digest=parsed.digest,
        size=len(parsed.raw),
        annotations=parsed.annotations,
        artifact_type=artifact_type,
    )
    return jsonbytes.compact(descriptor.to_json()).decode()


def missing(needs: tuple[Referral, ...]) -> Refusal:
    """The refusal of a manifest whose repository lacks these, each named."""
    shown = [{"digest": need.digest, **({} if need.size is None else {"size": need.size})} for need in needs[:100]]
    message = f"the repository lacks {len(needs)} of the blobs or manifests that this manifest needs"
    return Refusal(Code.MANIFEST_BLOB_UNKNOWN, message, detail=shown)
