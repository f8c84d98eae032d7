"""What belongs to a build's result: images, and statements about them. Facts: buildx history/inspect_attachment.go."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from buildengine.digest import Digest
from buildengine.history import Blob, BuildHistory, BuildRecord
from buildengine.values import dataclass

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_PREDICATE = "in-toto.io/predicate-type"
_PROVENANCE = "https://slsa.dev/provenance/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """`type` is a media type, or of a statement its predicate's."""

    digest: str
    platform: str
    type: str


def attachments(history: BuildHistory, record: BuildRecord) -> list[Attachment]:
    """Those that are still there."""
    found: list[Attachment] = []
    whole = {"": record.result} if record.result is not None else {}
    for platform, info in {**whole, **record.results}.items():
        found += [_attachment(blob, platform) for blob in info.attestations]
        for blob in info.results.values():
            found += _below(history, blob, platform)
    return sorted(found, key=lambda each: (bool(each.platform), each.platform, each.type))


def materials(history: BuildHistory, found: list[Attachment]) -> list[dict[str, Any]]:
    """What the build was made of, as its provenance says."""
    statement = next((each for each in found if each.type.startswith(_PROVENANCE)), None)
    document = _json(history, statement.digest) if statement is not None else {}
    definition = document.get("buildDefinition")
    listed = definition.get("resolvedDependencies") if isinstance(definition, dict) else document.get("materials")
    return [
        {"URI": each.get("uri", ""), "Digests": [f"{kind}:{hex}" for kind, hex in each.get("digest", {}).items()]}
        for each in listed or ()
    ]


def _attachment(blob: Blob, platform: str) -> Attachment:
    return Attachment(digest=blob.digest, platform=platform, type=blob.annotations.get(_PREDICATE, blob.media_type))


def _below(history: BuildHistory, blob: Blob, platform: str) -> Iterator[Attachment]:
    if history.document(blob.digest) is None:
        return
    if blob.annotations.get("vnd.docker.reference.type") != "attestation-manifest":
        yield _attachment(blob, platform)
    if blob.media_type not in _INDEXES:
        return
    for entry in _json(history, blob.digest).get("manifests", ()):
        below = Blob(
            media_type=entry.get("mediaType", ""),
            digest=Digest(entry["digest"]),
            size=entry.get("size", 0),
            annotations=entry.get("annotations") or {},
        )
        yield from _below(history, below, _platform(entry.get("platform")) or platform)


def _platform(document: Mapping[str, str] | None) -> str:
    parts = [document.get(key, "") for key in ("os", "architecture", "variant")] if document else []
    return "/".join(filter(None, parts))


def _json(history: BuildHistory, digest: str) -> dict[str, Any]:
    with suppress(ValueError):
        document = json.loads(history.document(Digest(digest)) or b"{}")
        if isinstance(document, dict):
            return document
    return {}
