"""Layers of Windows images: files below Files/, attributes and security descriptors, hives left out."""

from __future__ import annotations

import base64
import io
import os
import tarfile
from pathlib import Path

import pytest

from worker.layers import windows
from worker.layers.apply import apply
from worker.layers.tar import Kind, TarHeader
from worker.layers.write import layer_blocks

TIME = 1_600_000_000


def archive(directory: Path, *, lower: int | None = None, epoch: int | None = None) -> bytes:
    with layer_blocks(directory, lower, epoch=epoch, shape=windows.shape(epoch)) as blocks:
        return b"".join(bytes(block) for block in blocks)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    directory = tmp_path / "layer"
    (directory / "app").mkdir(parents=True)
    (directory / "app/a").write_text("1")
    os.link(directory / "app/a", directory / "app/b")
    (directory / "app/l").symlink_to("a")
    for path in (directory / "app/a", directory / "app"):
        os.utime(path, (TIME, TIME))
    return directory


def test_what_is_written(layer: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(layer))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "Hives", "Files", "Files/app", "Files/app/a", "Files/app/b", "Files/app/l",
    ]  # fmt: skip
    hives, _, app, file, link, symlink = members
    assert (hives.mtime, hives.pax_headers.get("MSWINDOWS.rawsd")) == (0, None)
    assert app.pax_headers["MSWINDOWS.fileattr"] == "16"
    assert file.pax_headers["MSWINDOWS.fileattr"] == "32"
    assert file.pax_headers["LIBARCHIVE.creationtime"] == f"{TIME}.0"
    assert (link.linkname, symlink.linkname) == ("Files/app/a", "a")
    for member in (app, file):
        descriptor = base64.b64decode(member.pax_headers["MSWINDOWS.rawsd"], validate=True)
        assert descriptor[:4] == b"\x01\x00\x04\x80"  # revision 1, self-relative, with a DACL ([MS-DTYP] 2.4.6)


def test_times_are_clamped_everywhere(layer: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(layer, epoch=TIME - 5))) as tar:
        for member in tar.getmembers():
            assert member.mtime <= TIME - 5
            assert member.pax_headers["LIBARCHIVE.creationtime"] == f"{int(member.mtime)}.0"


def test_there_and_back(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    apply(io.BytesIO(archive(layer)), tmp_path / "out", windows=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["app"]
    assert (tmp_path / "out/app/b").read_text() == "1"
    assert (tmp_path / "out/app/b").stat().st_nlink == 2
    assert os.readlink(tmp_path / "out/app/l") == "a"


def test_what_is_no_file_is_left_out() -> None:
    assert windows.file_of(TarHeader(name=b"Hives/System_Delta", kind=Kind.FILE, size=4)) is None
    assert windows.file_of(TarHeader(name=b"Files", kind=Kind.DIRECTORY)) is None
    found = windows.file_of(TarHeader(name=b"Files/.wh.x", kind=Kind.FILE))
    assert found is not None
    assert found.name == b".wh.x"


def test_a_plain_layer_stays_one(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with layer_blocks(layer, None) as blocks:
        plain = b"".join(bytes(block) for block in blocks)
    apply(io.BytesIO(plain), tmp_path / "out", windows=True)
    assert sorted(os.listdir(tmp_path / "out/app")) == ["a", "b", "l"]


def test_deleted_files(layer: Path, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "app").mkdir(parents=True)
    (lower / "app/gone").touch()
    os.mknod(layer / "app/gone", 0o20000, os.makedev(0, 0))
    fd = os.open(lower, os.O_RDONLY)
    try:
        data = archive(layer, lower=fd)
    finally:
        os.close(fd)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "Files/app/.wh.gone" in tar.getnames()
