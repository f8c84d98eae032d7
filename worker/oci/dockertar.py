"""The `docker save` format: what it adds to an OCI layout when written, and how an old one is made sense of.

A current docker archive is an OCI layout with two more files, and so is ours:

    manifest.json   [{"Config": path, "RepoTags": [familiar names], "Layers": [paths, lowest first]}]
    repositories    {"app": {"1.0": "<id of the top layer>"}}, which docker before 1.10 read

An archive without `index.json` (docker before 25, podman, skopeo) has the config at `<hex>.json` and layers at
`<id>/layer.tar` or `<hex>.tar`, a repeated layer as a symlink to the first. A manifest is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from buildengine.digest import Digest
from buildengine.values import dataclass
from worker.oci import jsonbytes
from worker.oci.document import Fields, InvalidImage, parse_json
from worker.oci.types import (
    CONFIG_LIMIT,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    DOCKER_MANIFEST,
    Descriptor,
    Manifest,
    parse_config,
)

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_LINKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One file of an archive, as it went into the store; `magic` is its first bytes."""

    digest: Digest
    size: int
    magic: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerImage:
    """One entry of `manifest.json`: paths inside the archive, names as docker shows them (`app:1.0`)."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...] = ()


def files(images: Sequence[tuple[Manifest, Sequence[str]]]) -> dict[str, bytes]:
    """`manifest.json` and `repositories` for manifests and their familiar names (`app:1.0`)."""
    manifest = [
        {
            "Config": _blob_path(image.config.digest),
            "RepoTags": list(names) or None,
            "Layers": [_blob_path(layer.digest) for layer in image.layers],
        }
        for image, names in images
    ]
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        for name in names:
            repository, _, tag = name.rpartition(":")
            top = image.layers[-1].digest if image.layers else image.config.digest
            repositories.setdefault(repository, {})[tag] = top.hex
    extra = {"manifest.json": jsonbytes.compact(manifest)}
    if repositories:
        ordered = {name: dict(sorted(tags.items())) for name, tags in sorted(repositories.items())}
        extra["repositories"] = jsonbytes.compact(ordered)
    return extra


def parse_manifest_json(raw: bytes) -> tuple[DockerImage, ...]:
    """The entries of a `manifest.json`. Raises InvalidImage."""
    entries = parse_json(raw, what="manifest.json")
    if not isinstance(entries, list) or len(entries) > 10_000:
        raise InvalidImage("manifest.json is not a list of images")
    images = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InvalidImage(f"manifest.json: entry {position} is not an object")
        fields = Fields(entry, f"manifest.json: [{position}]")
        images.append(
            DockerImage(
                config=fields.text("Config"),
                layers=tuple(fields.texts("Layers", most=10_000)),
                names=tuple(fields.texts("RepoTags", most=10_000)),
            )
        )
    return tuple(images)


def make_manifest(
    image: DockerImage,
    found: Mapping[str, Stored],
    links: Mapping[str, str],
    read: Callable[[Digest, int], bytes],
) -> bytes:
    """A schema 2 manifest for one entry of an old archive. Raises InvalidImage when the archive lacks a file.

    `found` are the archive's files by name, `links` its symlinks and hard links. An uncompressed layer must have
    the diff ID that the config gives it; a compressed one is checked when it is unpacked.
    """
    config_file = _look_up(image.config, found, links)
    config = parse_config(read(config_file.digest, CONFIG_LIMIT), what=image.config)
    if len(config.diff_ids) != len(image.layers):
        raise InvalidImage(f"{image.config} names {len(config.diff_ids)} layers, manifest.json {len(image.layers)}")
    layers = []
    for name, diff_id in zip(image.layers, config.diff_ids, strict=True):
        layer = _look_up(name, found, links)
        media_type = _layer_type(layer)
        if media_type == DOCKER_LAYER and layer.digest != diff_id:
            raise InvalidImage(f"the layer {name} has the digest {layer.digest}, its image says {diff_id}")
        layers.append(Descriptor(media_type=media_type, digest=layer.digest, size=layer.size))
    described = Descriptor(media_type=DOCKER_CONFIG, digest=config_file.digest, size=config_file.size)
    return manifest_bytes(DOCKER_MANIFEST, described, layers)


def manifest_bytes(media_type: str, config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """An image manifest as BuildKit's exporter writes it."""
    return jsonbytes.indented(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def _layer_type(layer: Stored) -> str:
    if layer.magic.startswith(GZIP_MAGIC):
        return DOCKER_LAYER_GZIP
    return DOCKER_LAYER_ZSTD if layer.magic.startswith(ZSTD_MAGIC) else DOCKER_LAYER


def _look_up(name: str, found: Mapping[str, Stored], links: Mapping[str, str]) -> Stored:
    """The file that `name` means in the archive. Links lead from name to name, nowhere else."""
    current = _resolve("", name)
    for _ in range(_MAX_LINKS):
        if current in found:
            return found[current]
        if current not in links:
            raise InvalidImage(f"the archive lacks {name}")
        current = _resolve(current.rpartition("/")[0], links[current])
    raise InvalidImage(f"the archive has a loop of links at {name}")


def _resolve(directory: str, link: str) -> str:
    parts: list[str] = directory.split("/") if directory and not link.startswith("/") else []
    for part in link.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _blob_path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"
