"""A manifest or an index for people, in the lines and columns of `docker buildx imagetools inspect`. Pure.

    Name:      docker.io/library/alpine:latest
    MediaType: application/vnd.oci.image.index.v1+json
    Digest:    sha256:...

    Manifests:
      Name:      docker.io/library/alpine:latest@sha256:...
      MediaType: application/vnd.oci.image.manifest.v1+json
      Platform:  linux/amd64

Facts: docker/buildx util/imagetools/printers.go; Go text/tabwriter (columns end where a writer is flushed).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from buildengine.cli.progress.lines import safe
from buildengine.reference import parse
from buildengine.registries import RemoteDocument

Row = tuple[str, str]
_INDENT = "  "


def listing(document: RemoteDocument) -> Iterator[str]:
    """The lines that show `document`."""
    head = [("Name:", document.name), ("MediaType:", document.media_type), ("Digest:", str(document.digest))]
    yield from _columns(head)
    manifests = json.loads(document.raw).get("manifests")
    if manifests is not None:
        yield from _columns([("", ""), ("Manifests:", "")])
        yield from _entries(document.name, manifests)


def _entries(name: str, manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows: list[Row] = []
    for number, entry in enumerate(manifests):
        rows += [("", "")] if number else []
        rows += _entry(name, entry)
        annotations = entry.get("annotations")
        if annotations and entry.get("platform"):
            yield from _columns([*rows, (f"{_INDENT}Annotations:", "")])
            yield from _columns([(f"{_INDENT}{_INDENT}{key}:", value) for key, value in sorted(annotations.items())])
            rows = []
    yield from _columns(rows)


def _entry(name: str, entry: Mapping[str, Any]) -> list[Row]:
    found = [("Name", f"{_named(name, entry['digest'])}"), ("MediaType", entry.get("mediaType", ""))]
    platform = entry.get("platform")
    if platform:
        parts = (platform.get("os") or "unknown", platform.get("architecture"), platform.get("variant"))
        found += [
            ("Platform", "/".join(filter(None, parts))),
            ("OSVersion", platform.get("os.version", "")),
            ("OSFeatures", ", ".join(platform.get("os.features") or ())),
            ("URLs", ", ".join(entry.get("urls") or ())),
        ]
    return [(f"{_INDENT}{title}:", value) for title, value in found if value]


def _named(name: str, digest: str) -> str:
    reference = parse(name)
    return f"{name}@{digest}" if reference.digest is None else f"{str(reference).partition('@')[0]}@{digest}"


def _columns(rows: Sequence[Row]) -> Iterator[str]:
    """As tabwriter aligns them: the first cell as wide as the widest, and one space."""
    width = max((len(safe(title)) for title, _ in rows), default=0) + 1
    return (f"{safe(title):<{width}}{safe(value)}" for title, value in rows)
