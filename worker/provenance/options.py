"""The attributes of `attest:provenance`, read once. Pure.

Facts: BuildKit control/control.go (Solve), solver/llbsolver/provenance.go (NewProvenanceCreator), proc/provenance.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from buildengine.errors import UserError, meant
from buildengine.values import dataclass

TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class Version(Enum):
    SLSA02 = "v0.2"
    SLSA1 = "v1"

    @property
    def predicate_type(self) -> str:
        return f"https://slsa.dev/provenance/{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceOptions:
    """`whole`: mode=max, with the steps and build arguments. `inline_only`: for images in registries and stores only,
    not for archives and directories."""

    version: Version = Version.SLSA02
    whole: bool = True
    inline_only: bool = False
    reproducible: bool = False
    builder_id: str = ""
    filename: str = "provenance.json"


def read(attrs: Mapping[str, str]) -> ProvenanceOptions:
    """Others than these are passed over, as BuildKit does. Raises UserError."""
    return ProvenanceOptions(
        version=_version(attrs.get("version", Version.SLSA02.value)),
        whole=_is_whole(attrs.get("mode", "max")),
        inline_only=attrs.get("inline-only") in TRUE,
        reproducible=_reproducible(attrs.get("reproducible", "false")),
        builder_id=attrs.get("builder-id", ""),
        filename=attrs.get("filename", "provenance.json"),
    )


def _version(text: str) -> Version:
    if not text:
        raise UserError("provenance SLSA version cannot be empty", hint="version=v0.2 or version=v1")
    try:
        return Version(text)
    except ValueError:
        raise UserError(f"invalid provenance SLSA version: {text}", hint="version=v0.2 or version=v1") from None


def _is_whole(mode: str) -> bool:
    if mode not in ("min", "max", "full"):  # `full` is an older name of `max`
        close = meant(mode, ("min", "max"))
        raise UserError(f'invalid mode "{mode}"', hint=f"did you mean {close}?" if close else "mode=min or mode=max")
    return mode != "min"


def _reproducible(text: str) -> bool:
    if text not in (*TRUE, *FALSE):
        raise UserError(f'failed to parse reproducible flag "{text}"', hint="reproducible=true or reproducible=false")
    return text in TRUE
