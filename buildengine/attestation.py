"""What an attestation says of itself, wherever its content is. Values only.

A frontend returns attestations beside its results: in-toto predicates in a file, or a bundle, a directory of whole
in-toto statements. The engine adds its own.

Facts: BuildKit solver/result/attestation.go, frontend/gateway/pb/gateway.proto; https://in-toto.io/Statement/v0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum
from types import MappingProxyType

from buildengine.values import dataclass

SPDX = "https://spdx.dev/Document"  # the predicate type of an SBOM
PROVENANCE = "https://slsa.dev/provenance/"  # what those of provenances begin with
REASON, SBOM_CORE, INLINE_ONLY = "reason", "sbom-core", "inline-only"  # names of `Claim.metadata`
_NONE: Mapping[str, bytes] = MappingProxyType({})


class Kind(IntEnum):
    """Numbers as in the gateway API."""

    IN_TOTO = 0
    BUNDLE = 1


class SubjectKind(IntEnum):
    """SELF: what the attestation is beside. RAW: what its digests say. Numbers as in the gateway API."""

    SELF = 0
    RAW = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`digests` are `algorithm:hex`."""

    kind: SubjectKind = SubjectKind.SELF
    name: str = ""
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """`path` is the file of the predicate, or the directory of a bundle. No subjects: what it is beside."""

    kind: Kind = Kind.IN_TOTO
    predicate_type: str = ""
    subjects: tuple[Subject, ...] = ()
    path: str = ""
    metadata: Mapping[str, bytes] = field(default_factory=lambda: _NONE)

    @property
    def is_inline_only(self) -> bool:
        """For images in registries and stores, not for archives and directories."""
        return self.metadata.get(INLINE_ONLY) == b"true"
