"""What is attested of a result, as exporters need it: a manifest beside an image, or files beside the files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

from buildengine.limits import HASH, offload
from cache.layers import Layers
from cache.overlay import once
from worker.exporters import document, statement
from worker.exporters.attestations import statements, unbundled
from worker.exporters.document import ExportLayer
from worker.exporters.options import ExportOptions
from worker.exporters.result import PlatformImage
from worker.exporters.sbom import supplemented
from worker.exporters.statement import AttestationManifest, Named
from worker.layers.names import Path
from worker.layers.rootpath import open_directory
from worker.oci.types import Descriptor
from worker.provenance.purl import DOCKER, image_purl
from worker.trees import Trees


async def attestation_manifest(
    trees: Trees,
    layers: Layers,
    image: PlatformImage,
    exported: Sequence[ExportLayer],
    descriptor: Descriptor,
    options: ExportOptions,
) -> AttestationManifest:
    """The manifest of all that is attested of `image`, which has become `descriptor`. Raises UserError, SourceError.

    Its subjects are the names of the image; an image without a name has none.
    """
    beside = [
        Named(
            name=image_purl(DOCKER, str(name), image.platform),
            digests={descriptor.digest.algorithm: descriptor.digest.hex},
        )
        for name in options.names
    ]
    given = await unbundled(trees, image.attestations)
    whole = [await supplemented(trees, layers, one, once(image.stack), exported) for one in given]
    made = await statements(trees, whole, beside)
    return statement.manifest(made, descriptor, document.OCI, artifact=options.artifacts)


async def attestation_files(
    trees: Trees, image: PlatformImage, options: ExportOptions, *, platform: str = ""
) -> Mapping[str, bytes]:
    """The statements that stand beside the files of `image`, by file name: all regular files are their subjects.

    With a `platform` the names say for which. Raises UserError, SourceError.
    """
    wanted = [one for one in image.attestations if not one.claim.is_inline_only]
    if not wanted:
        return {}
    given = await unbundled(trees, wanted)
    await trees.ensure(image.stack)
    with trees.open_stack(image.stack) as root:
        beside = await offload(_subjects, root, limiter=HASH)
    return statement.files(await statements(trees, given, beside), prefix=options.attestation_prefix, platform=platform)


def _subjects(root: int) -> list[Named]:
    """Every regular file of a tree with its digest, in the order of a walk."""
    found: list[Named] = []
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        directory = open_directory(root, path)
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: os.fsencode(entry.name))
            for entry in entries:
                inside = (*path, os.fsencode(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(inside)
                elif entry.is_file(follow_symlinks=False):
                    name = b"/".join(inside).decode(errors="replace")
                    found.append(Named(name=name, digests={"sha256": _hash(directory, entry.name)}))
        finally:
            os.close(directory)
    return sorted(found, key=lambda named: named.name.split("/"))


def _hash(directory: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
