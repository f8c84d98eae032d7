"""Images of the local store as documents in the shapes of docker's API: pure functions of manifest and config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from buildengine.reference import parse
from worker.oci.types import Descriptor, ImageConfig, Manifest, diff_ids_by_layer


def inspection(
    manifest: Manifest, config: ImageConfig, *, names: Sequence[str], target: Descriptor, platforms: Sequence[str]
) -> Mapping[str, object]:
    """As `docker image inspect` shows it, and beside RootFS.Layers (diff ids) the blobs as they are pushed.

    `target` is what the names lead to: `manifest`, or an index for `platforms`.
    """
    document = config.document
    references = [parse(name) for name in names if name]
    layers = diff_ids_by_layer(manifest, config)
    return {
        "Id": str(config.digest),
        "RepoTags": [reference.familiar for reference in references],
        "RepoDigests": sorted({f"{reference.familiar.rpartition(':')[0]}@{target.digest}" for reference in references}),
        "Created": document.get("created", ""),
        "Author": document.get("author", ""),
        "Config": document.get("config") or {},
        "Architecture": document.get("architecture", ""),
        **({"Variant": document["variant"]} if document.get("variant") else {}),
        "Os": document.get("os", ""),
        **({"OsVersion": document["os.version"]} if document.get("os.version") else {}),
        "Size": sum(layer.size for layer, _ in layers),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for _, diff_id in layers]},
        "Digest": str(target.digest),
        "MediaType": manifest.media_type,
        "Descriptor": target.to_json(),
        "Platforms": list(platforms),
        "Layers": [
            {
                "DiffID": str(diff_id),
                "Digest": str(layer.digest),
                "Size": layer.size,
                "MediaType": layer.media_type,
            }
            for layer, diff_id in layers
        ],
    }


def steps(manifest: Manifest, config: ImageConfig) -> list[Mapping[str, object]]:
    """The history, newest first, with the size of each step's blob."""
    sizes = iter([layer.size for layer in manifest.layers])
    entries: list[Mapping[str, object]] = []
    for entry in config.document.get("history") or []:
        size = 0 if entry.get("empty_layer") else next(sizes, 0)
        entries.append(
            {
                "Id": "<missing>",
                "Created": created_seconds(entry),
                "CreatedBy": str(entry.get("created_by", "")),
                "Size": size,
                "Comment": str(entry.get("comment", "")),
            }
        )
    if entries:
        entries[-1] = {**entries[-1], "Id": str(config.digest)}
    return entries[::-1]


def created_seconds(document: Mapping[str, Any]) -> int:
    """The `created` time of a config or history entry; 0 when it has none that can be read."""
    try:
        return int(datetime.fromisoformat(str(document.get("created"))).timestamp())
    except (ValueError, OverflowError):
        return 0
