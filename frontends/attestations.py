"""What a build is asked to attest, among the options of a frontend. Pure.

    attest:provenance=mode=min,version=v1
    attest:sbom=generator=IMAGE,KEY=VALUE      also build-arg:BUILDKIT_ATTEST_SBOM

Facts: BuildKit frontend/attestations/parse.go, frontend/dockerui/config.go (the scanner's reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from buildengine import reference
from buildengine.builder import ATTEST_OPTIONS
from buildengine.errors import UserError, meant
from buildengine.values import dataclass
from frontends.dockerfile import notation

SBOM, PROVENANCE = "sbom", "provenance"
_SCANNER = "docker/buildkit-syft-scanner:stable-1"  # what BuildKit takes where nobody names one
_DEFAULTS: Mapping[str, Mapping[str, str]] = {SBOM: {"generator": _SCANNER}, PROVENANCE: {"version": "v0.2"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """The image that writes SBOMs, by its whole name; `parameters` reach it as BUILDKIT_SCAN_NAME."""

    image: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def read(options: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """The attributes of each kind of attestation that is asked for. Raises UserError."""
    asked: dict[str, str] = {}
    for name, value in options.items():
        for prefix in ATTEST_OPTIONS:
            if name.startswith(prefix):
                asked[name.removeprefix(prefix).lower()] = value
    found = {kind: {**_DEFAULTS.get(kind, {}), **_attributes(kind, text)} for kind, text in asked.items()}
    for kind in found:
        if kind not in _DEFAULTS:
            close = meant(kind, tuple(_DEFAULTS))
            raise UserError(
                f'unknown attestation type "{kind}"', hint=f"did you mean {close}?" if close else "provenance or sbom"
            )
    return dict(found)


def scanner(options: Mapping[str, str]) -> Scanner | None:
    """Raises UserError."""
    attributes = read(options).get(SBOM)
    if attributes is None:
        return None
    named = attributes["generator"]
    if not named:
        raise UserError("sbom generator cannot be empty", hint="--sbom=generator=IMAGE")
    try:
        image = reference.normalize(named)
    except UserError as error:
        raise UserError(f"failed to parse sbom scanner {named}: {error.message}", hint=error.hint) from None
    parameters = {name: value for name, value in attributes.items() if name != "generator"}
    return Scanner(image=image, parameters=parameters)


def _attributes(kind: str, text: str) -> dict[str, str]:
    try:
        fields = notation.csv_fields(text) if text else ()
    except ValueError as error:
        raise UserError(f"failed to parse {kind}: {error}") from None
    pairs = (field.partition("=") for field in fields)
    return {name: value for name, _, value in pairs}
