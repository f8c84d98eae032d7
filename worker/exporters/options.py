"""The attributes of `--output type=...,key=value`, read once into a frozen value.

Names are BuildKit's (exporter/containerimage/opts.go, exporter/local). An attribute nobody knows is an error: a
misspelt option that is silently ignored makes a wrong image.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from buildengine.errors import UserError
from buildengine.reference import Reference, parse
from buildengine.values import dataclass
from worker.layers.compress import Compression

_COMMON = frozenset({"source-date-epoch"})
_IMAGE = _COMMON | {
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
}
_NAMING = ("dangling-name-prefix", "name-canonical")
KNOWN: Mapping[str, frozenset[str]] = {
    "image": _IMAGE | {"push", "push-by-digest", "registry.insecure", "store", *_NAMING, "unpack"},
    "oci": _IMAGE | {"tar"},
    "docker": _IMAGE | {"tar"},
    "tar": _COMMON | {"platform-split"},
    "local": _COMMON | {"platform-split", "mode"},
}
_PUSH = frozenset({"push", "push-by-digest"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What one exporter was asked for. `level` None is the compression's default; `epoch` is in seconds."""

    names: tuple[Reference, ...] = ()
    compression: Compression = Compression.GZIP
    level: int | None = None
    force_compression: bool = False
    oci_media_types: bool = False
    annotations: Mapping[str, str] | None = None
    index_annotations: Mapping[str, str] | None = None
    epoch: int | None = None
    rewrite_timestamp: bool = False
    tar: bool = True
    platform_split: bool | None = None
    delete: bool = False
    store: bool = True


def read(kind: str, attrs: Mapping[str, str], *, epoch: int | None = None) -> ExportOptions:
    """The options of an exporter of this type. Raises UserError."""
    if kind not in KNOWN:
        close = difflib.get_close_matches(kind, [*KNOWN, "registry"], 1)
        raise UserError(
            f"unknown export type {kind!r}",
            hint=f"did you mean {close[0]}?" if close else f"one of {', '.join(sorted(KNOWN))}",
        )
    manifest, index, plain = _annotations(attrs)
    _check_names(kind, plain)
    if any(_flag(plain, name, False) for name in _PUSH):
        raise UserError(
            "pushing to a registry is not supported yet", hint="export type=oci and push the archive, e.g. with skopeo"
        )
    _check_supported(kind, plain)
    own_epoch = plain.get("source-date-epoch")
    return ExportOptions(
        names=tuple(parse(name.strip()) for name in plain.get("name", "").split(",") if name.strip()),
        compression=_compression(plain.get("compression", "gzip")),
        level=_number(plain, "compression-level"),
        force_compression=_flag(plain, "force-compression", False),
        oci_media_types=_flag(plain, "oci-mediatypes", kind == "oci") or bool(manifest or index),
        annotations=manifest or None,
        index_annotations=index or None,
        epoch=_number(plain, "source-date-epoch") if own_epoch else epoch,
        rewrite_timestamp=_flag(plain, "rewrite-timestamp", False),
        tar=_flag(plain, "tar", True),
        platform_split=_flag(plain, "platform-split", True) if "platform-split" in plain else None,
        delete=_is_delete(plain.get("mode", "copy")),
        store=_flag(plain, "store", True),
    )


def check_platforms(kind: str, count: int) -> None:
    """Refuse what holds one platform (docker's archive, a tar of files) for several. Raises UserError."""
    if kind in ("docker", "tar") and count > 1:
        other = {"docker": "oci", "tar": "local"}[kind]
        raise UserError(f"type={kind} exports one platform, not {count}", hint=f"use type={other} for several")


def _check_supported(kind: str, attrs: Mapping[str, str]) -> None:
    """Refuse what would change the result and is not made yet; what asks for nothing may stand.

    `unpack` needs nothing done, whatever its value: the store unpacks the layers of an image when a step first
    needs them, and those that were built here are unpacked already.
    """
    _flag(attrs, "unpack", False)
    if kind == "tar" and _flag(attrs, "platform-split", False):
        raise UserError("platform-split is not supported for an export of type tar", hint="use type=local")
    if _flag(attrs, "name-canonical", False):
        raise UserError("name-canonical is not supported", hint="the local store finds an image by its digest as well")
    if attrs.get("dangling-name-prefix"):
        raise UserError("dangling-name-prefix is not supported", hint="an image without a name is found by its id")
    if _flag(attrs, "registry.insecure", False):
        raise UserError("registry.insecure is not supported", hint="nothing is pushed to a registry yet")


def _is_delete(mode: str) -> bool:
    if mode not in ("copy", "delete"):
        raise UserError(f"unknown mode {mode!r} of a local export", hint="the modes are copy and delete")
    return mode == "delete"


def _annotations(attrs: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Manifest annotations, index annotations, and the attributes that are neither."""
    manifest: dict[str, str] = {}
    index: dict[str, str] = {}
    plain: dict[str, str] = {}
    for name, value in attrs.items():
        scope, dot, key = name.partition(".")
        if dot and scope in ("annotation", "annotation-manifest"):
            manifest[key] = value
        elif dot and scope == "annotation-index":
            index[key] = value
        else:
            plain[name] = value
    return manifest, index, plain


def _check_names(kind: str, attrs: Mapping[str, str]) -> None:
    for name in attrs:
        if name not in KNOWN[kind]:
            close = difflib.get_close_matches(name, KNOWN[kind], 1)
            hint = f"did you mean {close[0]}?" if close else f"type={kind} takes {', '.join(sorted(KNOWN[kind]))}"
            raise UserError(f"unknown attribute {name!r} for an export of type {kind}", hint=hint)


def _compression(name: str) -> Compression:
    try:
        return Compression(name)
    except ValueError:
        kinds = ", ".join(kind.value for kind in Compression)
        raise UserError(f"unsupported layer compression type {name!r}", hint=f"one of {kinds}") from None


def _flag(attrs: Mapping[str, str], name: str, default: bool) -> bool:
    value = attrs.get(name)
    if value is None:
        return default
    if value.lower() in ("", "1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise UserError(f"{name}={value}: not a boolean", hint="use true or false")


def _number(attrs: Mapping[str, str], name: str) -> int | None:
    value = attrs.get(name)
    if value is None:
        return None
    if not value.lstrip("-").isdigit() or len(value) > 18:
        raise UserError(f"{name}={value}: not a number")
    return int(value)
