"""One index out of several images, as `docker buildx imagetools create` makes it. Pure: documents in, bytes out.

Entries are kept as they were written, in the order of Go's fields: a platform keeps its spelling (`arm64/v8`), so an
index that is made again has the same digest everywhere. Facts: docker/buildx util/imagetools/create.go (what is
merged, what is copied as it is, which attestations stay), image-spec descriptor.md and image-index.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform, from_json, parse, rank
from buildengine.values import dataclass
from worker.oci import jsonbytes
from worker.oci.document import Fields
from worker.oci.types import DOCKER_INDEX, MANIFEST_LIMIT, OCI_INDEX, Descriptor, Index, Manifest

Entry = Mapping[str, Any]
"""A descriptor as JSON."""

ByPlatform = Sequence[tuple[str, Mapping[str, str]]]
"""Annotations for the entries of one platform; of all of them where it is ""."""

_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_INDEX = ("schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations")
_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"
_ATTESTATION = "attestation-manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image to take: its document, and the entry it has when it becomes part of an index."""

    document: Manifest | Index
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The new image: an index, or the one manifest that was to be copied. `platform` is that manifest's."""

    raw: bytes
    media_type: str
    platform: Platform | None = None

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=Digest.sha256(self.raw), size=len(self.raw))


def combine(
    sources: Sequence[Source],
    *,
    annotations: Mapping[str, str] | None = None,
    entry_annotations: ByPlatform = (),
    prefer_index: bool = True,
) -> Combined:
    """The image that consists of `sources`, in their order. A single index is taken as it is.

    So is a single manifest, unless an index is preferred. What is to be annotated becomes an OCI index, since Docker's
    has no place for annotations. Raises UserError.
    """
    is_annotated = bool(annotations or entry_annotations)
    if len(sources) == 1 and not is_annotated:
        (document, entry) = sources[0].document, sources[0].entry
        if isinstance(document, Index) or not prefer_index:
            platform = from_json(entry["platform"]) if entry.get("platform") else None
            return Combined(raw=document.raw, media_type=document.media_type, platform=platform)
    entries = _annotated(_merged(entry for source in sources for entry in _entries(source)), entry_annotations)
    is_dockers = not is_annotated and all(_is_dockers(entry) for entry in entries)
    index = {
        "schemaVersion": 2,
        "mediaType": DOCKER_INDEX if is_dockers else OCI_INDEX,
        "manifests": entries,
        "annotations": dict(annotations or {}),
    }
    return _index(index)


def only_platforms(combined: Combined, wanted: Collection[Platform]) -> Combined:
    """Of `combined` what is for one of `wanted`, with its attestations; the very same bytes when that is all.

    An entry that does not say its platform stays. Raises UserError when nothing is left.
    """
    if not wanted:
        return combined
    shown = ", ".join(map(str, wanted))
    index = Fields.parse(combined.raw, what="index", limit=MANIFEST_LIMIT).document
    if "manifests" not in index:
        if combined.platform is None or not _is_for(combined.platform, wanted):
            raise UserError(f"the source is for {combined.platform or 'no platform'}, not for {shown}")
        return combined
    entries = index["manifests"] or ()
    kept = _chosen(entries, wanted)
    if not kept:
        raise UserError(f"no manifest is for {shown}", hint=f"there are {_platforms(entries)}")
    return combined if len(kept) == len(entries) else _index({**index, "manifests": kept})


def entry_of(document: Manifest | Index, given: Entry, platform: Mapping[str, Any] | None) -> Entry:
    """The entry for a source: what somebody wrote about it (`given`) over what it is. Raises UserError.

    `platform` fills what `given` does not say of it.
    """
    entry: dict[str, Any] = {
        "mediaType": document.media_type,
        "digest": str(document.digest),
        "size": len(document.raw),
    }
    if given.get("size", entry["size"]) != entry["size"]:
        raise UserError(f"{document.digest} has {entry['size']} bytes, its descriptor says {given['size']}")
    for name in ("mediaType", "annotations", "urls", "artifactType"):
        if given.get(name):
            entry[name] = given[name]
    stated = given.get("platform") or {}
    if stated or platform:
        entry["platform"] = {**_missing(stated, platform or {}), **{name: stated[name] for name in stated}}
    return entry


def _missing(stated: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Of what an image config says what a descriptor left open: a variant belongs to its architecture."""
    if not stated:
        return dict(known)
    names = [name for name in ("os",) if not stated.get(name)]
    if not stated.get("architecture"):
        names += ["architecture"] if stated.get("variant") else ["architecture", "variant"]
    return {name: known[name] for name in names if name in known}


def _entries(source: Source) -> Sequence[Entry]:
    if isinstance(source.document, Manifest):
        return (source.entry,)
    index = Fields.parse(source.document.raw, what="index", limit=MANIFEST_LIMIT).document
    return index.get("manifests") or ()


def _merged(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Each manifest once, where it came first; what is said of it later is added to what was said."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        known = found.setdefault(entry["digest"], dict(entry))
        known["platform"] = entry.get("platform") or known.get("platform")
        known["annotations"] = {**(known.get("annotations") or {}), **(entry.get("annotations") or {})}
    return list(found.values())


def _annotated(entries: list[dict[str, Any]], given: ByPlatform) -> list[dict[str, Any]]:
    for platform, values in given:
        chosen = [entry for entry in entries if not platform or _is(entry, platform)]
        if not chosen:
            raise UserError(f"no manifest is for {platform}", hint=f"there are {_platforms(entries)}")
        for entry in chosen:
            entry["annotations"] = {**entry["annotations"], **values}
    return entries


def _is(entry: Entry, platform: str) -> bool:
    return bool(entry.get("platform")) and str(from_json(entry["platform"])) == str(parse(platform))


def _chosen(entries: Sequence[Entry], wanted: Collection[Platform]) -> list[Entry]:
    fits = {
        entry["digest"]
        for entry in entries
        if not entry.get("platform") or _is_for(from_json(entry["platform"]), wanted)
    }
    return [entry for entry in entries if entry["digest"] in fits or _attested(entry) in fits]


def _attested(entry: Entry) -> str | None:
    """The digest of the manifest that this one attests something of."""
    annotations = entry.get("annotations") or {}
    if annotations.get(_REFERENCE_TYPE) != _ATTESTATION:
        return None
    return annotations.get(_REFERENCE_DIGEST)


def _is_for(offered: Platform, wanted: Collection[Platform]) -> bool:
    return any(rank(platform, offered) == 0 for platform in wanted)


def _is_dockers(entry: Entry) -> bool:
    return str(entry["mediaType"]).startswith("application/vnd.docker.")


def _platforms(entries: Iterable[Entry]) -> str:
    named = {str(from_json(entry["platform"])) for entry in entries if entry.get("platform")}
    return ", ".join(sorted(named - {"unknown/unknown"})) or "none that say so"


def _index(document: Mapping[str, Any]) -> Combined:
    ordered = _ordered({**document, "manifests": [in_gos_order(entry) for entry in document["manifests"]]}, _INDEX)
    if "annotations" in ordered:
        ordered["annotations"] = dict(sorted(ordered["annotations"].items()))
    ordered.setdefault("manifests", [])
    raw = jsonbytes.indented(ordered)
    if len(raw) > MANIFEST_LIMIT:
        raise UserError(f"the index would have {len(raw)} bytes; a registry takes {MANIFEST_LIMIT}")
    return Combined(raw=raw, media_type=ordered["mediaType"])


def in_gos_order(entry: Entry) -> dict[str, Any]:
    """As Go's `ocispec.Descriptor` is written, without the fields that it does not know."""
    ordered = _ordered(entry, _DESCRIPTOR)
    if "annotations" in ordered:
        ordered["annotations"] = dict(sorted(ordered["annotations"].items()))
    if "platform" in ordered:
        ordered["platform"] = {"architecture": "", "os": "", **_ordered(entry["platform"], _PLATFORM)}
    return ordered


def _ordered(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: document[name] for name in names if document.get(name)}
