"""in-toto statements, and the manifest that holds them beside an image: documents from values. Pure.

Facts: https://in-toto.io/Statement/v0.1; BuildKit exporter/attestation/make.go, exporter/containerimage/writer.go
(commitAttestationsManifest), exporter/local/fs.go (names of files).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from buildengine.attestation import Claim, Subject, SubjectKind
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from worker.exporters.document import MediaTypes
from worker.oci import jsonbytes, types
from worker.oci.types import Descriptor

TYPE = "https://in-toto.io/Statement/v0.1"
MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"  # an annotation
ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
NOWHERE = Platform(os="unknown", architecture="unknown")  # what no client takes for an image that it could run
_EMPTY = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a statement can be about: `digests` by algorithm."""

    name: str
    digests: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "digest": dict(sorted(self.digests.items()))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """`document` is the whole statement, `path` where its predicate was."""

    predicate_type: str
    path: str
    document: Mapping[str, Any]


def statement(claim: Claim, predicate: bytes, beside: Sequence[Named]) -> Statement:
    """`beside` is what the attestation stands beside: its subjects, unless it names others. Raises UserError."""
    try:
        content = parsed(predicate) if predicate else None
    except ValueError as error:
        raise UserError(f"the attestation {claim.path} is not JSON: {error}") from error
    subjects = [named for subject in claim.subjects or (Subject(),) for named in _named(subject, beside)]
    return Statement(
        predicate_type=claim.predicate_type,
        path=claim.path,
        document={
            "_type": TYPE,
            "predicateType": claim.predicate_type,
            "subject": [subject.to_json() for subject in subjects],
            "predicate": content,
        },
    )


def parsed(data: bytes) -> Any:
    """A JSON document that can be written again. Raises ValueError."""
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    """Python reads NaN and what overflows, JSON knows neither."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return value


def _written(write: Callable[[Mapping[str, Any]], bytes], one: Statement) -> bytes:
    try:
        return write(one.document)
    except RecursionError:
        raise UserError(f"the attestation {one.path} is nested too deeply") from None


def _named(subject: Subject, beside: Sequence[Named]) -> list[Named]:
    if subject.kind is SubjectKind.RAW:
        return [Named(name=subject.name or "_", digests=dict(_split(digest) for digest in subject.digests))]
    names = [subject.name] if subject.name not in ("", "_") else []
    return [Named(name=name, digests=one.digests) for one in beside for name in (one.name, *names)]


def _split(digest: str) -> tuple[str, str]:
    algorithm, _, value = digest.partition(":")
    return algorithm, value


# --- beside an image -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationManifest:
    """`blobs` are the documents that go into the store, the manifest last; `descriptor` is the index's entry."""

    blobs: tuple[bytes, ...]
    descriptor: Descriptor


def manifest(
    statements: Sequence[Statement], image: Descriptor, family: MediaTypes, *, artifact: bool
) -> AttestationManifest:
    """The manifest of what is attested of `image`. `artifact`: as an OCI artifact with a subject."""
    layers = [_written(jsonbytes.compact, one) for one in statements]
    config = _EMPTY if artifact else _config(layers)
    described = [
        Descriptor(
            media_type=MEDIA_TYPE,
            digest=Digest.sha256(data),
            size=len(data),
            annotations={PREDICATE_TYPE: one.predicate_type},
        )
        for one, data in zip(statements, layers, strict=True)
    ]
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": family.manifest}
    if artifact:
        document["artifactType"] = ARTIFACT
        empty = Descriptor(media_type=types.OCI_EMPTY, digest=Digest.sha256(_EMPTY), size=len(_EMPTY))
        document["config"] = {**empty.to_json(), "data": "e30="}
    else:
        document["config"] = _plain(family.config, config).to_json()
    document["layers"] = [layer.to_json() for layer in described]
    if artifact:
        document["subject"] = Descriptor(media_type=image.media_type, digest=image.digest, size=image.size).to_json()
    raw = jsonbytes.indented(document)
    reference = {
        "vnd.docker.reference.digest": str(image.digest),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return AttestationManifest(
        blobs=(*layers, config, raw),
        descriptor=Descriptor(
            media_type=family.manifest,
            digest=Digest.sha256(raw),
            size=len(raw),
            annotations=reference,
            platform=NOWHERE,
        ),
    )


def _plain(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.sha256(data), size=len(data))


def _config(layers: Sequence[bytes]) -> bytes:
    """An image config, so that registries and engines of before OCI artifacts keep it."""
    return jsonbytes.compact({
        "architecture": NOWHERE.architecture,
        "os": NOWHERE.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.sha256(data)) for data in layers]},
    })  # fmt: skip


# --- beside files --------------------------------------------------------------------------------------------------


def files(statements: Sequence[Statement], *, prefix: str, platform: str = "") -> dict[str, bytes]:
    """The statements as files, by name. With a `platform` the names say for which. Raises UserError."""
    found: dict[str, bytes] = {}
    for one in statements:
        path = PurePosixPath(prefix + PurePosixPath(one.path).name)
        name = f"{path.stem}.{platform.replace('/', '_')}{path.suffix}" if platform else str(path)
        if name in (".", "..") or "\0" in name:
            raise UserError(f"attestation path {one.path!r} names no file", hint="e.g. provenance.json")
        if name in found:
            raise UserError(f"duplicate attestation path name {name}", hint="attestations need paths of their own")
        found[name] = _written(jsonbytes.indented, one)
    return found
