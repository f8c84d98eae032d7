"""The attributes of `--output type=...,key=value`, read once into a frozen value.

Names are BuildKit's (exporter/containerimage/opts.go, exporter/local). An attribute nobody knows is an error: a
misspelt option that is silently ignored makes a wrong image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from buildengine.digest import Digest
from buildengine.errors import UserError, meant
from buildengine.reference import Reference, parse, parse_repository
from buildengine.units import parse_epoch
from buildengine.values import dataclass
from worker.exporters.annotations import Annotations
from worker.exporters.annotations import parse as parse_annotations
from worker.layers.compression import Compression, chosen_level

_COMMON = frozenset({"source-date-epoch"})
_IMAGE = _COMMON | {
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "prefer-nondist-layers",
    "rewrite-timestamp",
    "attestation-inline",
    "oci-artifact",
}
_NAMING = ("dangling-name-prefix", "danging-name-empty-only", "name-canonical")  # the second as BuildKit spells it
KNOWN: Mapping[str, frozenset[str]] = {
    "image": _IMAGE | {"push", "push-by-digest", "registry.insecure", "store", *_NAMING, "unpack"},
    "oci": _IMAGE | {"tar"},
    "docker": _IMAGE | {"tar"},
    "tar": _COMMON | {"platform-split", "attestation-prefix"},
    "local": _COMMON | {"platform-split", "attestation-prefix", "mode"},
}
_IMAGES = frozenset({"image", "oci", "docker"})
_OF_RESULT = "*"  # exporter/containerimage/export.go: the names that the frontend gives


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What one exporter was asked for. `kind` is its type, `level` None the compression's default.

    `epoch` is in seconds; layers are rewritten to it only if that is asked for too. An image that is only pushed (not
    `store`) may leave layers in the registry where they are. `names_of_result`: those that the frontend gives it, in
    place of `names`. `inline_attestations`: those too that are for images in registries and stores only; `artifacts`:
    attestations are OCI artifacts with a subject.
    """

    kind: str
    names: tuple[Reference, ...] = ()
    names_of_result: bool = False
    compression: Compression = Compression.GZIP
    level: int | None = None
    force_compression: bool = False
    prefer_nondistributable: bool = False
    oci_media_types: bool = False
    annotations: Annotations = Annotations()
    inline_attestations: bool = False
    artifacts: bool = False
    attestation_prefix: str = ""
    epoch: int | None = None
    rewrite_timestamp: bool = False
    tar: bool = True
    platform_split: bool | None = None
    delete: bool = False
    store: bool = True
    push: bool = False
    by_digest: bool = False
    insecure: bool = False
    dangling_prefix: str = ""
    dangling_empty_only: bool = False
    name_canonical: bool = False

    def annotated(self, more: Annotations) -> ExportOptions:
        """With `more` annotations, over those that were asked for."""
        merged = self.annotations.merged(more)
        return replace(self, annotations=merged, oci_media_types=self.oci_media_types or merged.need_oci)

    def named(self, names: str) -> ExportOptions:
        """With the names that a frontend gives, "" for none. Raises UserError."""
        if not (self.names_of_result and names):
            return self
        return replace(self, names=_names(names, push=self.push, by_digest=self.by_digest))

    @property
    def layer_epoch(self) -> int | None:
        """The latest time that a layer made here may hold; None leaves its times."""
        return self.epoch if self.rewrite_timestamp else None

    def names_of(self, digest: Digest) -> tuple[Reference, ...]:
        """Every name that an image of this digest gets in the store: those asked for, and those with its digest."""
        names = [replace(name, digest=digest) if self.by_digest else name for name in self.names]
        if self.dangling_prefix and not (self.names and self.dangling_empty_only):
            names.append(parse(f"{self.dangling_prefix}@{digest}"))
        if self.name_canonical:
            names += [replace(name, digest=digest) for name in self.names if name.digest is None]
        return tuple(dict.fromkeys(names))

    def check_platforms(self, count: int, *, multi_platform: bool = False) -> None:
        """Refuse what one image can be made into, and a set of them cannot. Raises UserError."""
        if self.kind == "docker" and (count > 1 or multi_platform):
            held = f"{count} platforms" if count > 1 else "an index"
            raise UserError(f"type=docker holds one image, not {held}", hint="use type=oci, or build for one platform")
        if self.kind == "tar" and count > 1 and self.platform_split is False:
            hint = "remove platform-split=false, or use type=local"
            raise UserError("type=tar does not merge several platforms", hint=hint)


def read(kind: str, attrs: Mapping[str, str], *, epoch: int | None = None) -> ExportOptions:
    """The options of an exporter of this type. Raises UserError."""
    if kind not in KNOWN:
        raise _unknown(kind)
    annotations, plain = parse_annotations(attrs) if kind in _IMAGES else (Annotations(), dict(attrs))
    _check_names(kind, plain)
    flag(plain, "unpack", False)  # nothing to be done: the store unpacks layers when a step first needs them
    names = plain.get("name", "")
    push, by_digest = flag(plain, "push", False), flag(plain, "push-by-digest", False)
    compression = _compression(plain.get("compression", "gzip"))
    artifacts = flag(plain, "oci-artifact", False)
    oci = flag(plain, "oci-mediatypes", kind == "oci") or annotations.need_oci or artifacts
    return ExportOptions(
        kind=kind,
        names=() if names == _OF_RESULT else _names(names, push=push, by_digest=by_digest),
        names_of_result=names == _OF_RESULT,
        compression=compression,
        level=_level(plain, compression),
        force_compression=flag(plain, "force-compression", False),
        prefer_nondistributable=flag(plain, "prefer-nondist-layers", False),
        oci_media_types=oci,
        annotations=annotations,
        inline_attestations=flag(plain, "attestation-inline", kind == "image"),
        artifacts=artifacts,
        attestation_prefix=_prefix(plain.get("attestation-prefix", "")),
        epoch=_epoch(plain, epoch),
        rewrite_timestamp=flag(plain, "rewrite-timestamp", False),
        tar=flag(plain, "tar", True),
        platform_split=flag(plain, "platform-split", True) if "platform-split" in plain else None,
        delete=_is_delete(plain.get("mode", "copy")),
        store=flag(plain, "store", not push),
        push=push,
        by_digest=by_digest,
        insecure=flag(plain, "registry.insecure", False),
        dangling_prefix=plain.get("dangling-name-prefix", ""),
        dangling_empty_only=flag(plain, "danging-name-empty-only", False),
        name_canonical=flag(plain, "name-canonical", False),
    )


def _unknown(kind: str) -> UserError:
    close = meant(kind, [*KNOWN, "registry"])
    hint = f"did you mean {close}?" if close else f"one of {', '.join(sorted(KNOWN))}"
    return UserError(f'exporter "{kind}" could not be found', hint=hint)  # as clients know it


def _names(text: str, *, push: bool, by_digest: bool) -> tuple[Reference, ...]:
    """The names of the image; those to push by digest are repositories, without a tag."""
    texts = [name.strip() for name in text.split(",") if name.strip()]
    if push and not texts:
        raise UserError("an image that is pushed needs a name", hint="e.g. -t registry.example/app:1")
    if not by_digest:
        return tuple(map(parse, texts))
    names = tuple(map(parse_repository, texts))
    for name in names:
        if name.tag or name.digest:
            raise UserError(f"{name.familiar} has a tag, and push-by-digest pushes without one", hint="remove the tag")
    return names


def _prefix(text: str) -> str:
    if "/" in text or "\0" in text:
        raise UserError(f"attestation-prefix={text!r} is no beginning of a file name", hint="leave out the slash")
    return text


def _is_delete(mode: str) -> bool:
    if mode not in ("copy", "delete"):
        raise UserError(f"unknown mode {mode!r} of a local export", hint="the modes are copy and delete")
    return mode == "delete"


def _check_names(kind: str, attrs: Mapping[str, str]) -> None:
    for name in attrs:
        if name not in KNOWN[kind] and not name.startswith("attest:"):  # an option of the build, not of an exporter
            close = meant(name, KNOWN[kind])
            hint = f"did you mean {close}?" if close else f"type={kind} takes {', '.join(sorted(KNOWN[kind]))}"
            raise UserError(f"unknown attribute {name!r} for an export of type {kind}", hint=hint)


def _compression(name: str) -> Compression:
    try:
        return Compression(name)
    except ValueError:
        kinds = ", ".join(kind.value for kind in Compression)
        if name == "estargz":
            raise UserError("compression=estargz is not supported", hint=f"one of {kinds}") from None
        raise UserError(f"unsupported layer compression type {name!r}", hint=f"one of {kinds}") from None


def _epoch(attrs: Mapping[str, str], of_build: int | None) -> int | None:
    """An exporter's own wins over the build's; an empty one is none."""
    own = attrs.get("source-date-epoch")
    if own is None:
        return of_build
    return parse_epoch("source-date-epoch", own) if own else None


def _level(attrs: Mapping[str, str], compression: Compression) -> int | None:
    """Raises UserError for a level that the compression does not have."""
    text = attrs.get("compression-level")
    if text is not None and not re.fullmatch("-?[0-9]{1,17}", text):
        raise UserError(f"compression-level={text}: not a number", hint="e.g. compression-level=6")
    level = int(text) if text is not None else None
    chosen_level(compression, level)
    return level


def flag(attrs: Mapping[str, str], name: str, default: bool) -> bool:
    """What an attribute says, or the default. Raises UserError."""
    value = attrs.get(name)
    if value is None:
        return default
    if value.lower() in ("", "1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise UserError(f"{name}={value}: not a boolean", hint="use true or false")
