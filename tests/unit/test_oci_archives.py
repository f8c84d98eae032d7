"""Image archives: the layouts we write, those that others write, and those that nobody should."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.errors import BuildError
from tests.fakes.blob_store import BlobStore
from tests.fakes.registry_server import Image, index
from worker.oci import dockertar, jsonbytes, layout, tarstream, types
from worker.oci.document import InvalidImage
from worker.oci.layout import Blob, NamedImage
from worker.oci.load import load_tar
from worker.oci.tarstream import Kind, TarReader, TarWriter
from worker.oci.types import Descriptor, parse_manifest

NAME = "docker.io/library/app:1"


def blob(data: bytes) -> Blob:
    return Blob(digest=Digest.sha256(data), size=len(data), open=lambda: io.BytesIO(data))


def blobs(*images: Image) -> list[Blob]:
    return [blob(data) for image in images for data in (image.manifest, image.config, *image.layers)]


def target(image: Image) -> Descriptor:
    return parse_manifest(image.manifest).descriptor


def written(image: Image, *names: str, extra: Mapping[str, bytes] | None = None) -> bytes:
    sink = io.BytesIO()
    layout.write_tar(sink, [NamedImage(target=target(image), names=names)], blobs(image), extra=extra)
    return sink.getvalue()


def tar(members: Sequence[tuple[str, bytes | str]], **options: object) -> bytes:
    """An archive by the standard library; a string is where a symlink leads, or `=name` for a hard link."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                info.linkname = content.lstrip("=")
                archive.addfile(info)
    return sink.getvalue()


def layout_members(image: Image, **replaced: bytes) -> list[tuple[str, bytes | str]]:
    listing = layout.index_json([NamedImage(target=target(image), names=(NAME,))])
    top = {"oci-layout": layout.LAYOUT_FILE, "index.json": listing, **replaced}
    contents = {f"blobs/sha256/{b.digest.hex}": b.open().read() for b in blobs(image)}
    return [*top.items(), *contents.items()]


# --- writing ------------------------------------------------------------------------------------------------


def test_a_layout_is_what_containerd_would_write() -> None:
    image = Image()
    raw = written(image, NAME, "docker.io/library/app:latest")
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        members = archive.getmembers()
        files = {m.name: (archive.extractfile(m) or io.BytesIO()).read() for m in members if m.isfile()}
    names = [m.name for m in members]
    assert names == sorted(names)
    assert names[:2] == ["blobs", "blobs/sha256"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [m.mode for m in members if m.name.startswith("blobs/sha256/")] == [0o444] * 4
    assert files["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'
    listing = json.loads(files["index.json"])
    assert [entry["annotations"] for entry in listing["manifests"]] == [
        {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "1"},
        {"io.containerd.image.name": "docker.io/library/app:latest", "org.opencontainers.image.ref.name": "latest"},
    ]
    assert raw == written(image, NAME, "docker.io/library/app:latest")
    assert raw.endswith(b"\0" * 1024)


def test_every_blob_is_written_once_and_exactly() -> None:
    image = Image(layers=(b"same", b"same"))
    assert written(image).count(Digest.sha256(b"same").hex.encode()) == 3  # its own name, and twice in the manifest
    for size in (3, 5):
        wrong = Blob(digest=Digest.sha256(b"same"), size=size, open=lambda: io.BytesIO(b"same"))
        with pytest.raises(InvalidImage, match="its size"):
            layout.write_tar(io.BytesIO(), [], [wrong])


def test_a_file_larger_than_ustar_knows() -> None:
    class Counting(io.RawIOBase):
        written = b""

        def write(self, data: Any) -> int:
            self.written += data[:2048]
            return len(data)

    class Endless:
        def read(self, size: int) -> bytes:
            raise KeyboardInterrupt  # the header is out: enough

    sink = Counting()
    with pytest.raises(KeyboardInterrupt):
        TarWriter(sink).file("blobs/sha256/x", 9 << 30, Endless())
    assert next(iter(TarReader(io.BytesIO(sink.written)))).size == 9 << 30


def test_docker_files() -> None:
    image = Image()
    manifest = parse_manifest(image.manifest)
    files = dockertar.files([(manifest, ("app:1", "app:latest", "host:5000/x:y")), (manifest, ())])
    entry, unnamed = json.loads(files["manifest.json"])
    assert entry == {
        "Config": f"blobs/sha256/{Digest.sha256(image.config).hex}",
        "RepoTags": ["app:1", "app:latest", "host:5000/x:y"],
        "Layers": [f"blobs/sha256/{Digest.sha256(layer).hex}" for layer in image.layers],
    }
    assert unnamed["RepoTags"] is None
    top = Digest.sha256(image.layers[-1]).hex
    assert json.loads(files["repositories"]) == {"app": {"1": top, "latest": top}, "host:5000/x": {"y": top}}


def test_a_directory_is_added_to_and_a_name_moves(tmp_path: Path) -> None:
    one, two = Image(layers=(b"one",)), Image(layers=(b"two",))
    root = os.open(tmp_path, os.O_RDONLY)
    layout.write_directory(root, [NamedImage(target=target(one), names=(NAME,))], blobs(one))
    layout.write_directory(root, [NamedImage(target=target(two), names=("docker.io/library/b:1",))], blobs(two))
    layout.write_directory(root, [NamedImage(target=target(two), names=(NAME,))], blobs(two))
    os.close(root)
    images = layout.parse_index_json((tmp_path / "index.json").read_bytes())
    assert images == (NamedImage(target=images[0].target, names=("docker.io/library/b:1", NAME)),)
    assert images[0].target.digest == target(two).digest
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_directory_is_not_left_through_a_symlink(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    inside = tmp_path / "dest"
    for path in (victim, inside):
        path.mkdir()
    (inside / "blobs").symlink_to(victim)
    (inside / "index.json").symlink_to(victim / "index.json")
    root = os.open(inside, os.O_RDONLY)
    with pytest.raises(OSError, match=r"No such file or directory|Not a directory|File exists"):
        layout.write_directory(root, [NamedImage(target=target(Image()))], blobs(Image()))
    os.close(root)
    assert list(victim.iterdir()) == []


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), (NAME,), (NAME, "docker.io/library/app:2")])
def test_what_was_written_is_read_back(names: tuple[str, ...]) -> None:
    image = Image()
    store = BlobStore()
    (loaded,) = load_tar(io.BytesIO(written(image, *names)), store)
    assert loaded.target.digest == target(image).digest
    assert loaded.names == names
    assert [m.manifest.raw for m in loaded.manifests] == [image.manifest]
    assert loaded.manifests[0].config is not None
    assert {b.digest for b in blobs(image)} <= set(store.blobs)


@pytest.mark.parametrize("reverse", [False, True])
def test_members_may_come_in_any_order(reverse: bool) -> None:
    members = layout_members(Image())
    (loaded,) = load_tar(io.BytesIO(tar(members[::-1] if reverse else members)), BlobStore())
    assert loaded.names == (NAME,)


def test_an_index_may_lack_platforms_but_not_all() -> None:
    here, gone = Image(), Image(architecture="arm64", layers=(b"gone",))
    raw = index(here.entry(), gone.entry())
    root = Descriptor(media_type=types.OCI_INDEX, digest=Digest.sha256(raw), size=len(raw))
    sink = io.BytesIO()
    layout.write_tar(sink, [NamedImage(target=root, names=(NAME,))], [blob(raw), *blobs(here)])
    (loaded,) = load_tar(io.BytesIO(sink.getvalue()), BlobStore())
    assert [m.manifest.raw for m in loaded.manifests] == [here.manifest]
    assert loaded.target == loaded.target
    empty = io.BytesIO()
    layout.write_tar(empty, [NamedImage(target=root)], [blob(raw)])
    with pytest.raises(InvalidImage, match="holds no manifest of the image"):
        load_tar(io.BytesIO(empty.getvalue()), BlobStore())


def test_an_index_that_names_others_again_and_again_is_read_once() -> None:
    """Each way down would be 10^12 of them."""
    image = Image()
    raws = [index(*[image.entry()] * 1000)]
    for _ in range(3):
        child = {"mediaType": types.OCI_INDEX, "digest": str(Digest.sha256(raws[-1])), "size": len(raws[-1])}
        raws.append(index(*[child] * 1000))
    root = Descriptor(media_type=types.OCI_INDEX, digest=Digest.sha256(raws[-1]), size=len(raws[-1]))
    sink = io.BytesIO()
    layout.write_tar(sink, [NamedImage(target=root, names=(NAME,))], [*map(blob, raws), *blobs(image)])
    (loaded,) = load_tar(io.BytesIO(sink.getvalue()), BlobStore())
    assert [m.manifest.raw for m in loaded.manifests] == [image.manifest]


def test_attestations_come_along() -> None:
    image = Image()
    statement = Image(config=b'{"os":"unknown","architecture":"unknown","rootfs":{"diff_ids":[]}}', layers=(b"{}",))
    entry = statement.entry(os="unknown", architecture="unknown")
    entry["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    raw = index(image.entry(), entry)
    root = Descriptor(media_type=types.OCI_INDEX, digest=Digest.sha256(raw), size=len(raw))
    sink = io.BytesIO()
    layout.write_tar(sink, [NamedImage(target=root)], [blob(raw), *blobs(image, statement)])
    (loaded,) = load_tar(io.BytesIO(sink.getvalue()), BlobStore())
    assert len(loaded.manifests) == 2


def test_names_from_dockers_file_when_the_index_has_none() -> None:
    image = Image()
    extra = dockertar.files([(parse_manifest(image.manifest), ("app:1",))])
    (loaded,) = load_tar(io.BytesIO(written(image, extra=extra)), BlobStore())
    assert loaded.names == ("app:1",)
    (loaded,) = load_tar(io.BytesIO(written(image, NAME, extra=extra)), BlobStore())
    assert loaded.names == (NAME,)


def old_docker(image: Image, *, names: Sequence[str] = ("app:1",)) -> list[tuple[str, bytes | str]]:
    """As docker before 25 and podman write it, the second layer being the first again."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.sha256(layer)) for layer in image.layers]},
    }
    raw = jsonbytes.compact(config)
    layers = [f"{number}/layer.tar" for number in range(len(image.layers))]
    manifest = [{"Config": f"{Digest.sha256(raw).hex}.json", "RepoTags": list(names), "Layers": layers}]
    return [
        ("manifest.json", jsonbytes.compact(manifest)),
        (f"{Digest.sha256(raw).hex}.json", raw),
        ("0/", b""),
        ("0/VERSION", b"1.0"),
        ("0/json", b"{}"),
        *((name, layer) for name, layer in zip(layers, image.layers, strict=True)),
    ]


def test_an_old_docker_archive_gets_a_manifest() -> None:
    image = Image(layers=(b"one", b"two"))
    store = BlobStore()
    (loaded,) = load_tar(io.BytesIO(tar(old_docker(image))), store)
    (found,) = loaded.manifests
    assert loaded.names == ("app:1",)
    assert found.manifest.media_type == types.DOCKER_MANIFEST
    assert [layer.media_type for layer in found.manifest.layers] == [types.DOCKER_LAYER] * 2
    assert store.blobs[loaded.target.digest] == found.manifest.raw
    assert b"1.0" not in store.blobs.values()


def test_links_in_an_old_docker_archive() -> None:
    image = Image(layers=(b"one", b"one", b"one"))
    members = old_docker(image)
    members[-2:] = [("1/layer.tar", "../0/layer.tar"), ("2/layer.tar", "=0/layer.tar")]
    (loaded,) = load_tar(io.BytesIO(tar(members)), BlobStore())
    assert len({layer.digest for layer in loaded.manifests[0].manifest.layers}) == 1
    for wrong in ("../../../../etc/passwd", "/etc/passwd", "layer.tar"):
        members[-2] = ("1/layer.tar", wrong)
        with pytest.raises(InvalidImage, match=r"lacks|loop"):
            load_tar(io.BytesIO(tar(members)), BlobStore())


def test_a_layer_that_is_not_what_the_config_says() -> None:
    members = old_docker(Image(layers=(b"one", b"two")))
    members[-1] = ("1/layer.tar", b"evil")
    with pytest.raises(InvalidImage, match="its image says"):
        load_tar(io.BytesIO(tar(members)), BlobStore())


def test_compressed_layers_in_an_old_docker_archive() -> None:
    members = old_docker(Image(layers=(b"one", b"two")))
    members[-2:] = [("0/layer.tar", b"\x1f\x8b..."), ("1/layer.tar", b"\x28\xb5\x2f\xfd...")]
    (loaded,) = load_tar(io.BytesIO(tar(members)), BlobStore())
    kinds = [layer.media_type for layer in loaded.manifests[0].manifest.layers]
    assert kinds == [types.DOCKER_LAYER_GZIP, types.DOCKER_LAYER_ZSTD]


WRONG_SIZE = index({**Image().entry(), "size": 5})


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([], "neither index.json nor manifest.json"),
        ([("file", b"x")], "neither index.json nor manifest.json"),
        (layout_members(Image(), **{"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}), "version '2.0.0'"),
        (layout_members(Image(), **{"oci-layout": b"{}"}), "imageLayoutVersion is missing"),
        (layout_members(Image(), **{"index.json": b"{"}), "index.json is not valid JSON"),
        (layout_members(Image(), **{"index.json": Image().manifest}), "calls itself"),
        (layout_members(Image(), **{"index.json": WRONG_SIZE}), "bytes, its descriptor says 5"),
        (layout_members(Image())[:-1], "lacks the blob"),
        ([*layout_members(Image()), ("blobs/sha256/" + "a" * 64, b"x")], "holds other bytes"),
        ([*layout_members(Image()), ("blobs/sha256/../../x", b"x")], "holds other bytes"),
        ([("manifest.json", b"{}")], "manifest.json is not a list"),
        ([("manifest.json", b"[1]")], "entry 0 is not an object"),
        ([("manifest.json", b'[{"Config": "/etc/passwd", "Layers": []}]')], "lacks /etc/passwd"),
        ([("manifest.json", b'[{"Layers": []}]')], "Config is missing"),
        ([("manifest.json", b" " * (5 << 20))], "more than the 4194304 allowed"),
    ],
)
def test_archives_that_hold_no_image(members: Sequence[tuple[str, bytes | str]], problem: str) -> None:
    with pytest.raises(InvalidImage, match=problem):
        load_tar(io.BytesIO(tar(members)), BlobStore())


def test_an_archive_that_is_cut_off_at_any_point() -> None:
    whole = written(Image(), NAME)
    end = whole.rindex(layout.LAYOUT_FILE)
    for length in range(0, end, 97):
        with pytest.raises(InvalidImage):
            load_tar(io.BytesIO(whole[:length]), BlobStore())


# --- tar ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_styles_of_tar(style: int) -> None:
    members: list[tuple[str, bytes | str]] = [("./a//b", b"1"), ("c", "a/b"), ("d", "=a/b"), ("e/", b"")]
    if style != tarfile.USTAR_FORMAT:
        members += [("long/" * 60 + "é", b"2"), ("f", "t" * 300)]
    read = list(TarReader(io.BytesIO(tar(members, format=style))))
    assert (read[0].name, read[0].kind, read[0].size) == ("a/b", Kind.FILE, 1)
    assert (read[1].kind, read[1].link) == (Kind.SYMLINK, "a/b")
    assert (read[2].kind, read[2].link) == (Kind.HARDLINK, "a/b")
    if style != tarfile.USTAR_FORMAT:
        assert read[4].name == "long/" * 60 + "é"
        assert read[5].link == "t" * 300


def header(name: str = "x", size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(records: bytes) -> bytes:
    return header("pax", len(records), tarfile.XHDTYPE) + records + bytes(-len(records) % 512)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"x" * 512, "not a tar archive"),
        (b"x" * 100, "cut off"),
        (header(size=1 << 40), "ends inside x"),
        (header(size=1 << 40, kind=tarfile.XHDTYPE), "more than the 1048576 allowed"),
        (header(size=1 << 40, kind=tarfile.GNUTYPE_LONGNAME), "more than the 1048576 allowed"),
        (header(kind=tarfile.GNUTYPE_SPARSE), "sparse"),
        (pax(b"13 path=abcd\n") + header(), ""),
        (pax(b"99 path=abcd\n") + header(), "malformed pax header"),
        (pax(b"0 path=abcd\n") + header(), "malformed pax header"),
        (pax(b"nonsense") + header(), "malformed pax header"),
        (pax(b"13 size=-123\n") + header(), "a member of size '-123'"),
        (pax(b"13 size=1e99\n") + header(), "a member of size '1e99'"),
        (pax(b"22 GNU.sparse.major=1\n") + header(), "sparse"),
    ],
)
def test_tar_headers_that_lie(raw: bytes, problem: str) -> None:
    reader = TarReader(io.BytesIO(raw))
    if not problem:
        assert [m.name for m in reader] == ["abcd"]
        return
    with pytest.raises(InvalidImage, match=problem):
        list(reader)


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "_MAX_MEMBERS", 1000)
    assert len(list(TarReader(io.BytesIO(header() * 999)))) == 999
    with pytest.raises(InvalidImage, match="more than 1000 members"):
        list(TarReader(io.BytesIO(header() * 1001)))


@given(st.binary(max_size=2000), st.integers(0, 4000))
def test_no_bytes_make_it_stumble(noise: bytes, at: int) -> None:
    whole = bytearray(written(Image(), NAME))
    whole[at : at + len(noise)] = noise
    try:
        load_tar(io.BytesIO(bytes(whole)), BlobStore())
    except BuildError:
        pass
