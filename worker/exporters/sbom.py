"""An SBOM of an image learns in which layer each of its files is.

A scanner sees one tree. So each file of the SPDX document that has no comment yet gets one, `layerID: sha256:...`:
the topmost layer that has it. What cannot be read as SPDX stays as it is.

Facts: BuildKit exporter/containerimage/attestations.go (supplementSBOM).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from buildengine import __version__
from buildengine.attestation import SPDX
from buildengine.errors import UserError
from buildengine.limits import DISK, offload
from cache.layers import Layers
from worker.exporters.attestations import Attestation, is_core_sbom, read
from worker.exporters.document import ExportLayer
from worker.exporters.statement import parsed
from worker.layers.rootpath import lstat
from worker.results import Stack
from worker.trees import Trees

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


async def supplemented(
    trees: Trees, layers: Layers, attestation: Attestation, stack: Stack, exported: Sequence[ExportLayer]
) -> Attestation:
    """The attestation with the layers of the image, of which `exported` is one blob for each layer of `stack`."""
    if attestation.claim.predicate_type != SPDX or not is_core_sbom(attestation.claim) or not stack:
        return attestation
    document = _parse(await read(trees, attestation))
    if document is None:
        return attestation
    if any(_commentless(document)):
        await trees.ensure(stack)
        directories = [str(layers.directory(layer)) for layer in stack]
        digests = [str(layer.digest) for layer in exported]
        await offload(_comment, document, directories, digests, limiter=DISK)
    info = document.setdefault("creationInfo", {})
    info["creators"] = [*(info.get("creators") or ()), f"Tool: pybuild-{__version__}"]
    data = json.dumps(document).encode()

    async def content() -> bytes:
        return data

    return replace(attestation, stack=None, content=content)


def _parse(data: bytes) -> dict[str, Any] | None:
    """An SPDX document as far as it is looked at; None for anything else."""
    try:
        document = parsed(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or "spdxVersion" not in document:
        return None
    lists = [document, *(p for p in document.get("packages") or () if isinstance(p, dict))]
    sound = isinstance(document.get("creationInfo") or {}, dict) and all(
        isinstance(each.get("files") or [], list) for each in lists
    )
    document["creationInfo"] = document.get("creationInfo") or {}
    return document if sound else None


def _commentless(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    holders = [document, *(p for p in document.get("packages") or () if isinstance(p, dict))]
    for holder in holders:
        for file in holder.get("files") or ():
            if isinstance(file, dict) and isinstance(file.get("fileName"), str) and not file.get("comment"):
                yield file


def _comment(document: dict[str, Any], directories: Sequence[str], digests: Sequence[str]) -> None:
    with ExitStack() as opened:
        roots = []
        for directory in directories:
            roots.append(os.open(directory, _DIRECTORY))
            opened.callback(os.close, roots[-1])
        for file in _commentless(document):
            position = _topmost(roots, file["fileName"])
            if position is not None:
                file["comment"] = f"layerID: {digests[position]}"


def _topmost(roots: Sequence[int], name: str) -> int | None:
    """The highest layer that has the file; a device 0/0 says that it is gone there (overlayfs, whiteouts)."""
    path = tuple(part for part in os.fsencode(name).split(b"/") if part not in (b"", b"."))
    for position in reversed(range(len(roots))):
        try:
            found = lstat(roots[position], path)
        except (OSError, UserError):
            continue
        if found is not None and not (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0):
            return position
    return None
