"""The OCI image layout (image-spec, image-layout.md) as a tar stream or a directory: written and read.

    oci-layout    {"imageLayoutVersion":"1.0.0"}
    index.json    one descriptor for each name of each image
    blobs/sha256/ everything else, by digest

A name stands in two annotations, as containerd and BuildKit write them: `io.containerd.image.name` is the whole
name, `org.opencontainers.image.ref.name` its tag. Tar members are sorted by name as theirs are. All of this is
synchronous and moves whole images: call it through `limits.offload`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import BinaryIO, Protocol

from buildengine.digest import Digest
from buildengine.inroot import make_dirs, read_regular
from buildengine.values import dataclass
from buildengine.wholefile import whole_file_at
from worker.oci import jsonbytes
from worker.oci.document import Fields, InvalidImage
from worker.oci.tarstream import Sink, TarWriter
from worker.oci.types import MANIFEST_LIMIT, OCI_INDEX, Descriptor, Index, parse_manifest_or_index

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob to write. `open` gives its bytes from the start; the reader verifies digest and length."""

    digest: Digest
    size: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImage:
    """An image of a layout: the manifest or index it is, and its names (`docker.io/library/app:1`), or none."""

    target: Descriptor
    names: tuple[str, ...] = ()


class BlobInfo(Protocol):
    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...


class BlobWriter(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def commit(self) -> BlobInfo: ...


class BlobStore(Protocol):
    """Where blobs of a read layout go: the content store, or a part of it."""

    def writer(
        self, *, expected: Digest | None = None, size: int | None = None
    ) -> AbstractContextManager[BlobWriter]: ...

    def read(self, digest: Digest, *, limit: int) -> bytes: ...

    def info(self, digest: Digest) -> BlobInfo | None: ...


def write_tar(
    sink: Sink, images: Sequence[NamedImage], blobs: Iterable[Blob], *, extra: Mapping[str, bytes] | None = None
) -> None:
    """Write the layout as a tar stream, deterministic in its arguments. `extra` are further files at its top."""
    writer = TarWriter(sink)
    writer.directory("blobs")
    writer.directory("blobs/sha256")
    for blob in _once(blobs):
        with closing(blob.open()) as source:
            writer.file(f"blobs/sha256/{blob.digest.hex}", blob.size, source)
    top = {"index.json": index_json(images), "oci-layout": LAYOUT_FILE, **(extra or {})}
    for name, data in sorted(top.items()):
        writer.data(name, data)
    writer.finish()


def write_directory(root: int, images: Sequence[NamedImage], blobs: Iterable[Blob]) -> None:
    """Write the layout into the directory `root` (a descriptor), beside the images it may hold already."""
    blob_dir = make_dirs(root, "blobs/sha256")
    try:
        for blob in _once(blobs):
            _write_blob(blob_dir, blob)
    finally:
        os.close(blob_dir)
    _replace_file(root, "oci-layout", LAYOUT_FILE)
    _replace_file(root, "index.json", index_json(images, _present_entries(root)))


def index_json(images: Sequence[NamedImage], present: Sequence[Descriptor] = ()) -> bytes:
    """`index.json` for these images. Of what was `present`, entries with the same name give way."""
    entries = [entry for image in images for entry in _entries(image)]
    fresh = {_identity(entry) for entry in entries}
    kept = [entry for entry in present if _identity(entry) not in fresh]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry.to_json() for entry in [*kept, *entries]],
    }
    return jsonbytes.compact(document)


def parse_index_json(raw: bytes) -> tuple[NamedImage, ...]:
    """The images that an `index.json` lists, entries for one target gathered. Raises InvalidImage."""
    index = parse_manifest_or_index(raw, media_type=OCI_INDEX, what="index.json")
    if not isinstance(index, Index):
        raise InvalidImage("index.json is not an image index")
    names: dict[Digest, list[str]] = {}
    targets: dict[Digest, Descriptor] = {}
    for entry in index.manifests:
        targets.setdefault(entry.digest, entry)
        name = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME)
        if name and name not in names.setdefault(entry.digest, []):
            names[entry.digest].append(name)
    return tuple(NamedImage(target=target, names=tuple(names.get(digest, ()))) for digest, target in targets.items())


def check_version(raw: bytes) -> None:
    """Raises InvalidImage when an `oci-layout` file is of a version that is not ours."""
    version = Fields.parse(raw, what="oci-layout", limit=1 << 16).text("imageLayoutVersion")
    if not version.startswith("1."):
        raise InvalidImage(f"the OCI layout has version {version[:40]!r}; version 1 is supported")


def _entries(image: NamedImage) -> Iterator[Descriptor]:
    if not image.names:
        yield image.target
    for name in image.names:
        annotations = {**image.target.annotations, IMAGE_NAME: name, REF_NAME: _tag(name)}
        yield replace(image.target, annotations=annotations)


def _identity(entry: Descriptor) -> tuple[str, ...]:
    name = (entry.annotations.get(IMAGE_NAME, ""), entry.annotations.get(REF_NAME, ""))
    return name if any(name) else (str(entry.digest),)


def _tag(name: str) -> str:
    """What follows the last colon of the last path component; a digest pin counts as containerd has it."""
    name, at, digest = name.partition("@")
    last = name.rpartition("/")[2]
    tag = last.partition(":")[2]
    return f"{tag}@{digest}" if at else tag or name


def _once(blobs: Iterable[Blob]) -> list[Blob]:
    return [blob for _, blob in sorted({blob.digest: blob for blob in blobs}.items())]


def _present_entries(root: int) -> tuple[Descriptor, ...]:
    try:
        raw = read_regular(root, "index.json", limit=MANIFEST_LIMIT)
    except FileNotFoundError:
        return ()
    index = parse_manifest_or_index(raw, media_type=OCI_INDEX, what="the index.json that is there already")
    return index.manifests if isinstance(index, Index) else ()


def _write_blob(directory: int, blob: Blob) -> None:
    name = blob.digest.hex
    try:
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_size == blob.size:
            return  # content-addressed: what another export wrote
    except FileNotFoundError:
        pass
    with closing(blob.open()) as source:
        _write_file(directory, name, iter(lambda: source.read(_CHUNK), b""))


def _replace_file(directory: int, name: str, data: bytes) -> None:
    _write_file(directory, name, iter([data]))


def _write_file(directory: int, name: str, chunks: Iterator[bytes]) -> None:
    """A reader never sees half a file."""
    with whole_file_at(directory, name, mode=0o644) as fd, os.fdopen(fd, "wb", closefd=False) as file:
        for data in chunks:
            file.write(data)
