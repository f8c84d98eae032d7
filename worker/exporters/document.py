"""Image config, manifest and index as documents: pure functions from values to the bytes that get a digest.

Digests depend on exact bytes, so form and rules are BuildKit's (exporter/containerimage/writer.go): the config
is compact JSON with its top-level keys sorted, manifests and indexes are indented by two spaces.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Any

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition
from buildengine.platform import Platform, from_json
from buildengine.units import timestamp
from buildengine.values import dataclass
from worker.oci import jsonbytes, types

INLINE_CACHE = "moby.buildkit.cache.v0"
EXPORTER_COMMENT = "buildkit.exporter.image.v0"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaTypes:
    """One family of names for the same things."""

    index: str
    manifest: str
    config: str
    layers: tuple[str, ...]
    foreign: tuple[str, ...]  # those of layers that may not be distributed, in the same order


_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
OCI = MediaTypes(
    index=types.OCI_INDEX,
    manifest=types.OCI_MANIFEST,
    config=types.OCI_CONFIG,
    layers=(types.OCI_LAYER, types.OCI_LAYER_GZIP, types.OCI_LAYER_ZSTD),
    foreign=(_OCI_FOREIGN, f"{_OCI_FOREIGN}+gzip", f"{_OCI_FOREIGN}+zstd"),
)
DOCKER = MediaTypes(
    index=types.DOCKER_INDEX,
    manifest=types.DOCKER_MANIFEST,
    config=types.DOCKER_CONFIG,
    layers=(types.DOCKER_LAYER, types.DOCKER_LAYER_GZIP, types.DOCKER_LAYER_ZSTD),
    foreign=(_DOCKER_FOREIGN, f"{_DOCKER_FOREIGN}.gzip", f"{_DOCKER_FOREIGN}.zstd"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportLayer:
    """One layer of the image to be: what the manifest says of it, and what the config and history need.

    `created` is in seconds since the epoch. A layer with `urls` lies there and is not to be distributed.
    """

    digest: Digest
    size: int
    media_type: str
    diff_id: Digest
    created: float
    description: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()

    def named_by(self, family: MediaTypes) -> ExportLayer:
        """The same layer under the media type that `family` has for it."""
        names = family.foreign if self.urls else family.layers
        for known in (OCI.layers, DOCKER.layers, OCI.foreign, DOCKER.foreign):
            if self.media_type in known:
                return replace(self, media_type=names[known.index(self.media_type)])
        return self


def config_bytes(
    raw: bytes,
    platform: Platform,
    layers: Sequence[ExportLayer],
    *,
    epoch: int | None = None,
    base: bytes = b"",
    cache: bytes = b"",
) -> bytes:
    """The frontend's image config, completed: rootfs, history aligned with the layers, created.

    `epoch` (SOURCE_DATE_EPOCH) clamps the times of what this build made. The entries that the config `base` of the
    base image begins with keep theirs. `cache` are the records of the cache that it holds: none but this build's.
    Raises InvalidDefinition.
    """
    document = _parse(raw)
    document.setdefault("architecture", platform.architecture)
    document.setdefault("os", platform.os)
    document["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    history = _with_times(_one_entry_a_layer(document.get("history") or [], layers), layers)
    if epoch is not None:
        latest = timestamp(epoch)
        kept = _shared(history, _parse(base).get("history") or [])
        history[kept:] = [{**entry, "created": _earlier(entry["created"], latest)} for entry in history[kept:]]
        if "created" in document:
            document["created"] = _earlier(str(document["created"]), latest)
    document["history"] = [_ordered(entry) for entry in history]
    if "created" not in document and history:
        document["created"] = history[-1]["created"]
    document.pop(INLINE_CACHE, None)
    if cache:
        document[INLINE_CACHE] = base64.b64encode(cache).decode()
    return jsonbytes.compact(dict(sorted(document.items())))


def described(platform: Platform, config: bytes) -> Platform:
    """The platform of an image's descriptor: of Windows the version and features too that its config has.

    A host chooses among images of Windows by these (containerd/platforms, BuildKit dockerui/build.go).
    """
    if platform.os != "windows":
        return platform
    found = from_json(_parse(config))
    if found.os != platform.os:
        return platform
    return replace(
        platform,
        os_version=platform.os_version or found.os_version,
        os_features=platform.os_features or found.os_features,
    )


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw or b"{}")
    except ValueError as error:
        raise InvalidDefinition(f"the frontend returned an image config that is not JSON: {error}") from error
    history = document.get("history") or [] if isinstance(document, dict) else None
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise InvalidDefinition("the frontend returned an image config that is not an object with a history list")
    assert isinstance(document, dict)
    return document


def _one_entry_a_layer(given: Sequence[Mapping[str, Any]], layers: Sequence[ExportLayer]) -> list[dict[str, Any]]:
    """As many entries that are not `empty_layer` as there are layers: surplus is marked, what lacks is added."""
    history, described = [], 0
    for entry in given:
        empty = bool(entry.get("empty_layer")) or described >= len(layers)
        described += not empty
        history.append({**entry, "empty_layer": True} if empty else dict(entry))
    history += [{"created_by": layer.description, "comment": EXPORTER_COMMENT} for layer in layers[described:]]
    return history


def _with_times(history: list[dict[str, Any]], layers: Sequence[ExportLayer]) -> list[dict[str, Any]]:
    """A time for every entry: a layer's own, for others that of the layer before (of the first new one)."""
    remaining = iter(layers)
    for entry in history:
        layer = None if entry.get("empty_layer") else next(remaining)
        if "created" not in entry and layer is not None:
            entry["created"] = timestamp(layer.created)
    current = _first_new_time(history) or timestamp(0)
    untimed_before = False
    for entry in history:
        if "created" in entry:
            current = entry["created"] if untimed_before else current
        else:
            untimed_before = True
            entry["created"] = current
    return history


def _first_new_time(history: Sequence[Mapping[str, Any]]) -> str | None:
    """The time of the first timed entry after one without; failing that, of the last timed entry."""
    found, untimed = None, False
    for entry in history:
        if "created" not in entry:
            untimed = True
            continue
        found = entry["created"]
        if untimed:
            break
    return found


def _shared(history: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> int:
    """How many entries both begin with."""
    pairs = zip(map(_ordered, history), map(_ordered, base), strict=False)
    return next((n for n, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(history), len(base)))


def _earlier(moment: str, latest: str) -> str:
    try:
        given = datetime.fromisoformat(moment)
    except ValueError:
        return latest
    return latest if given > datetime.fromisoformat(latest) else moment


def _ordered(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in the order of Go's `ocispec.History`, empty ones left out."""
    names = ("created", "created_by", "author", "comment", "empty_layer")
    return {name: entry[name] for name in names if entry.get(name)}


def manifest_bytes(
    config: bytes,
    layers: Sequence[ExportLayer],
    family: MediaTypes,
    *,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    descriptor = types.Descriptor(media_type=family.config, digest=Digest.sha256(config), size=len(config))
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": family.manifest,
        "config": descriptor.to_json(),
        "layers": [_descriptor(layer.named_by(family), annotated=family is OCI).to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return jsonbytes.indented(document)


def _descriptor(layer: ExportLayer, *, annotated: bool) -> types.Descriptor:
    annotations = layer.annotations if annotated else {}
    return types.Descriptor(
        media_type=layer.media_type, digest=layer.digest, size=layer.size, urls=layer.urls, annotations=annotations
    )


def index_bytes(
    manifests: Sequence[types.Descriptor], family: MediaTypes, *, annotations: Mapping[str, str] | None = None
) -> bytes:
    """An index of these manifests, in the order given."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": family.index,
        "manifests": [manifest.to_json() for manifest in manifests],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return jsonbytes.indented(document)
