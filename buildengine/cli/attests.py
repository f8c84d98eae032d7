"""--attest, --provenance and --sbom, as buildx reads them: what is to be attested, as options of the frontend.

    --attest type=provenance,mode=max      the long form
    --provenance mode=max                  a shorthand; true and false switch it on and off
    --sbom generator=IMAGE                 the same for an SBOM

Facts: docker/buildx util/buildflags/attests.go. There a container builder attests a provenance unless it is told not
to; here nothing is attested that nobody asked for: an image would be an index, which docker's archives and older
engines cannot take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from buildengine.cli.flags import fields, is_false, split_csv
from buildengine.errors import UserError, meant
from buildengine.values import dataclass

_TYPES = ("provenance", "sbom")
_TRUE, _FALSE = ("1", "t", "T", "true", "True", "TRUE"), ("0", "f", "F", "false", "False", "FALSE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """One thing to attest: `text` are its attributes, None where it is switched off."""

    type: str
    text: str | None = ""


def attest(text: str) -> Attest:
    """Raises UserError."""
    example = "type=provenance,mode=max"
    given = fields(text, example) if text else {}
    kind = given.get("type", "")
    if kind not in _TYPES:
        close = meant(kind, _TYPES)
        hint = f"did you mean {close}?" if close else f"e.g. {example}"
        raise UserError(f"unknown attestation type {kind!r}" if kind else f"{text!r} has no type", hint=hint)
    disabled = given.get("disabled", "false")
    if disabled not in (*_TRUE, *_FALSE):
        raise UserError(f"disabled={disabled} is not a boolean", hint="disabled=true or disabled=false")
    if not is_false(disabled):
        return Attest(type=kind, text=None)
    kept = [part for part in split_csv(text) if part.partition("=")[0].strip().lower() not in ("type", "disabled")]
    return Attest(type=kind, text=",".join(map(_quoted, kept)))


def shorthand(kind: str) -> Callable[[str], Attest]:
    """The reader of --provenance or --sbom."""

    def read(text: str) -> Attest:
        if text in (*_TRUE, *_FALSE):
            return Attest(type=kind, text="" if text in _TRUE else None)
        return attest(f"type={kind},{text}" if text else f"type={kind}")

    return read


def options(asked: Sequence[Attest]) -> dict[str, str]:
    """The frontend's options. Raises UserError when one kind is asked for twice."""
    for position, one in enumerate(asked):
        if any(one.type == other.type for other in asked[:position]):
            raise UserError(f"duplicate attestation field {one.type}", hint="give --attest once for each type")
    return {f"attest:{one.type}": one.text for one in asked if one.text is not None}


def _quoted(part: str) -> str:
    """A field of CSV."""
    if "," not in part and '"' not in part:
        return part
    return '"' + part.replace('"', '""') + '"'
