"""What `imagetools create` is to take: names, digests and descriptors, each with the repository where it is. Pure.

Facts: docker/buildx commands/imagetools/create.go (what a source may be, which repository a bare digest is in).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.reference import Reference, parse, parse_repository
from buildengine.values import dataclass
from worker.oci.document import Fields
from worker.oci.types import parse_descriptor

_LIMIT = 1 << 20
_HINT = "a source is a reference, a digest, or an OCI descriptor as JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSource:
    """Where a source is, and what was written about it, as a descriptor in JSON."""

    reference: Reference
    entry: Mapping[str, Any] = field(default_factory=dict)


def named_sources(texts: Sequence[str], targets: Sequence[Reference]) -> tuple[NamedSource, ...]:
    """Raises UserError for what is no source, or is somewhere that nobody named."""
    if not texts:
        raise UserError("there is nothing to make an image of", hint=_HINT)
    parsed = [_parsed(text.strip()) for text in texts]
    names = {name.name for name in targets} | {source.name for source in parsed if isinstance(source, Reference)}
    return tuple(_named(source, names) for source in parsed)


def _named(source: Reference | Mapping[str, Any], names: set[str]) -> NamedSource:
    if isinstance(source, Reference):
        return NamedSource(reference=source)
    if len(names) != 1:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(
            f"nobody says in which repository {source['digest']} is: named are {known}",
            hint=f"write REPOSITORY@{source['digest']}",
        )
    (name,) = names
    return NamedSource(reference=parse_repository(name).with_digest(Digest.parse(source["digest"])), entry=source)


def _parsed(text: str) -> Reference | Mapping[str, Any]:
    if text.startswith("{"):
        return _descriptor(text)
    if text.startswith("sha256:"):
        return {"digest": str(Digest.parse(text))}
    try:
        source = parse(text)
    except UserError as error:
        raise UserError(error.message, hint=_HINT) from None
    return replace(source, tag="") if source.digest is not None else source


def _descriptor(text: str) -> Mapping[str, Any]:
    try:
        fields = Fields.parse(text.encode(errors="surrogateescape"), what="the descriptor", limit=_LIMIT)
        if fields.has("schemaVersion"):
            raise UserError("a descriptor is needed, not a whole manifest or index", hint=_HINT)
        fields.digest("digest")
        complete = {"mediaType": "", "size": 0, **fields.document}
        parse_descriptor(Fields(complete, "the descriptor"))
    except SourceError as error:
        raise UserError(error.message, hint=_HINT) from None
    return {name: value for name, value in fields.document.items() if value}
