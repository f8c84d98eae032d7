"""`image load`: an OCI layout or docker archive, from a tar stream, into the content store.

One pass over the stream, in whatever order its members come: each blob goes straight into the store and is
verified there, the few small files that say what it all means are kept. Then every image is walked from its
root; a blob that is missing is an error, except that an index may name platforms the archive does not hold.
Synchronous: call it through `limits.offload`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field, replace

from buildengine.digest import Digest
from buildengine.values import dataclass
from worker.oci import dockertar
from worker.oci.dockertar import Stored
from worker.oci.document import InvalidImage
from worker.oci.layout import (
    BlobStore,
    NamedImage,
    check_version,
    parse_index_json,
)
from worker.oci.tarstream import Kind, Source, TarReader
from worker.oci.types import (
    CONFIG_LIMIT,
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_LIMIT,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    diff_ids_by_layer,
    parse_config,
    parse_manifest_or_index,
)

_TOP_FILES = frozenset({"oci-layout", "index.json", "manifest.json", "repositories"})
_MAX_DEPTH = 4
_MAX_MANIFESTS = 1000
_MAGIC = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedManifest:
    """A manifest whose blobs are all in the store. `config` is None for what is not an image (attestations)."""

    manifest: Manifest
    config: ImageConfig | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """An image as it is now in the store: root, names as written in the archive, complete manifests."""

    target: Descriptor
    names: tuple[str, ...]
    manifests: tuple[LoadedManifest, ...]


def load_tar(stream: Source, store: BlobStore) -> tuple[LoadedImage, ...]:
    """Store what the archive holds. `stream` is uncompressed tar. Raises InvalidImage."""
    contents = _spool(TarReader(stream), store)
    top = contents.top
    if "index.json" in top:
        check_version(top.get("oci-layout", b"{}"))
        images = _named_by_docker(parse_index_json(top["index.json"]), contents, store)
    elif "manifest.json" in top:
        images = tuple(_from_docker(contents, store))
    else:
        raise InvalidImage(
            "not an image archive: it has neither index.json nor manifest.json",
            hint="archives are made by `pybuild image save`, `docker save` or `--output type=oci`",
        )
    return tuple(_complete(image, store) for image in images)


@dataclass(slots=True)
class _Contents:
    top: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def _spool(reader: TarReader, store: BlobStore) -> _Contents:
    contents = _Contents()
    for member in reader:
        if member.kind is Kind.SYMLINK:
            contents.links[member.name] = member.link
        elif member.kind is Kind.HARDLINK:
            contents.links[member.name] = "/" + member.link
        elif member.kind is Kind.FILE and member.name in _TOP_FILES:
            contents.top[member.name] = reader.read(MANIFEST_LIMIT)
        elif member.kind is Kind.FILE and member.name.rpartition("/")[2] not in ("VERSION", "json"):
            contents.files[member.name] = _store(reader.chunks(), member.name, member.size, store)
    return contents


def _store(chunks: Iterable[bytes], name: str, size: int, store: BlobStore) -> Stored:
    """Store one file. Raises InvalidImage when its name promises another digest.

    The promise is not given to the writer: other bytes would be the archive's fault, not the store's.
    """
    magic = b""
    with store.writer(size=size) as writer:
        for data in chunks:
            magic = magic or data[:_MAGIC]
            writer.write(data)
        info = writer.commit()
    if name.startswith("blobs/sha256/") and name != f"blobs/sha256/{info.digest.hex}":
        raise InvalidImage(f"the archive's {name} holds other bytes: their digest is {info.digest}")
    return Stored(digest=info.digest, size=info.size, magic=magic)


def _named_by_docker(images: tuple[NamedImage, ...], contents: _Contents, store: BlobStore) -> tuple[NamedImage, ...]:
    """Names from `manifest.json` for images that `index.json` leaves without (docker 25's own archives)."""
    if "manifest.json" not in contents.top or all(image.names for image in images):
        return images
    names: dict[str, tuple[str, ...]] = {
        entry.config: entry.names for entry in dockertar.parse_manifest_json(contents.top["manifest.json"])
    }

    def named(image: NamedImage) -> NamedImage:
        if image.names or image.target.media_type in INDEX_TYPES or store.info(image.target.digest) is None:
            return image
        raw = store.read(image.target.digest, limit=MANIFEST_LIMIT)
        manifest = parse_manifest_or_index(raw, media_type=image.target.media_type)
        config = manifest.config.digest.hex if isinstance(manifest, Manifest) else ""
        return replace(image, names=names.get(f"blobs/sha256/{config}", ()))

    return tuple(named(image) for image in images)


def _from_docker(contents: _Contents, store: BlobStore) -> Iterator[NamedImage]:
    for image in dockertar.parse_manifest_json(contents.top["manifest.json"]):
        raw = dockertar.make_manifest(
            image, contents.files, contents.links, lambda digest, limit: store.read(digest, limit=limit)
        )
        with store.writer(size=len(raw)) as writer:
            writer.write(raw)
            writer.commit()
        manifest = parse_manifest_or_index(raw)
        yield NamedImage(target=manifest.descriptor, names=image.names)


def _complete(image: NamedImage, store: BlobStore) -> LoadedImage:
    manifests = _below(image.target, store)
    if not manifests:
        raise InvalidImage(f"the archive holds no manifest of the image {image.target.digest}")
    return LoadedImage(target=image.target, names=image.names, manifests=tuple(manifests))


def _below(target: Descriptor, store: BlobStore) -> list[LoadedManifest]:
    """The manifests below `target`, each once, in the order of the indexes. All but `target` may be missing."""
    found: list[LoadedManifest] = []
    read: set[Digest] = set()  # an index may name another as often as it likes
    waiting = [(target, 0)]
    while waiting:
        target, depth = waiting.pop()
        if target.digest in read or (depth and store.info(target.digest) is None):
            continue
        if depth > _MAX_DEPTH or len(found) > _MAX_MANIFESTS:
            raise InvalidImage("the archive's indexes are nested too deeply or hold too many manifests")
        read.add(target.digest)
        raw = _read(target, store, MANIFEST_LIMIT)
        parsed = parse_manifest_or_index(raw, media_type=target.media_type, what=f"manifest {target.digest}")
        if isinstance(parsed, Index):
            waiting += [(child, depth + 1) for child in reversed(parsed.manifests)]
        else:
            found.append(_manifest(target, parsed, store))
    return found


def _manifest(target: Descriptor, parsed: Manifest, store: BlobStore) -> LoadedManifest:
    """`parsed` with its config. Raises InvalidImage when a blob of it is missing."""
    for layer in parsed.layers:
        if not layer.urls:  # what may not be distributed lies where its URLs say
            _require(layer, store)
    config = None
    if parsed.config.media_type in CONFIG_TYPES:
        config = parse_config(_read(parsed.config, store, CONFIG_LIMIT), what=f"config of {target.digest}")
    else:
        _require(parsed.config, store)
    if config is not None and not _is_attestation(target):
        diff_ids_by_layer(parsed, config)
    return LoadedManifest(manifest=parsed, config=config)


def _is_attestation(target: Descriptor) -> bool:
    return target.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def _read(target: Descriptor, store: BlobStore, limit: int) -> bytes:
    _require(target, store)
    return store.read(target.digest, limit=limit)


def _require(target: Descriptor, store: BlobStore) -> None:
    info = store.info(target.digest)
    if info is None:
        raise InvalidImage(f"the archive lacks the blob {target.digest}")
    if info.size != target.size:
        raise InvalidImage(f"the blob {target.digest} has {info.size} bytes, its descriptor says {target.size}")
