"""A file is there whole or as it was before, and what is no file of its own is written through."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from buildengine.wholefile import whole_file, whole_file_at


def write(path: Path, data: bytes) -> None:
    with whole_file(path) as fd:
        os.write(fd, data)


@pytest.fixture(params=["unnamed", "named"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write, on a file system that has unnamed files or that has not."""
    if request.param == "named":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)  # always an error
    return tmp_path / "file"


def test_new_and_replaced(target: Path) -> None:
    write(target, b"old")
    before = target.stat().st_ino
    write(target, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_ino != before
    assert os.listdir(target.parent) == ["file"]


def test_it_appears_at_the_end_of_the_block_only(target: Path) -> None:
    target.write_bytes(b"old")
    with whole_file(target) as fd:
        os.write(fd, b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_a_failure_changes_nothing(target: Path) -> None:
    def fail() -> None:
        with whole_file(target) as fd:
            os.write(fd, b"new")
            raise ValueError("mine")

    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="mine"):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["file"]


def test_what_was_killed_between_its_two_names_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / ".file.pybuild").write_bytes(b"half")
    write(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_the_usual_mode(target: Path) -> None:
    old = os.umask(0o027)
    try:
        write(target, b"")
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_symlink_is_written_through(tmp_path: Path) -> None:
    """/dev/stdout is one, to whatever the output was redirected to: it must not become a file itself."""
    (tmp_path / "real").write_bytes(b"something longer")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe", b"new")
    assert os.read(reader, 100) == b"new"
    os.close(reader)


def test_in_a_directory_a_symlink_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"safe")
    (tmp_path / "link").symlink_to("real")
    directory = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with whole_file_at(directory, "link") as fd:
        os.write(fd, b"new")
    os.close(directory)
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"safe"


def test_many_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def often(byte: bytes) -> None:
        for _ in range(100):
            write(target, byte * 1000)

    threads = [threading.Thread(target=often, args=(byte,)) for byte in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in (b"a" * 1000, b"b" * 1000, b"c" * 1000)
    assert os.listdir(tmp_path) == ["file"]


def test_a_long_name_and_a_missing_directory(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)
    write(target, b"old")
    write(target, b"new")
    assert os.listdir(tmp_path) == [target.name]
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "absent" / "file", b"")
