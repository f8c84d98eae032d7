"""The small file actions, and that none of them reaches out of the root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildengine.errors import BuildError, ContextError, UserError
from llb.ops import MkDir, MkFile, Remove, Symlink
from worker.layers.actions import mkdir, mkfile, remove, symlink

SECOND = 1_000_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "f").write_text("old")
    (root / "d" / "f").chmod(0o640)
    os.symlink("/d", root / "l")
    os.symlink("../../outside", root / "out")
    (tmp_path / "outside").mkdir()
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    yield fd
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def test_mkdir(root: int, tree: Path) -> None:
    mkdir(root, MkDir(path="/l/new", mode=0o2750, timestamp=7 * SECOND), owner=(3, 4))
    info = (tree / "d/new").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid, info.st_mtime) == (0o750, 3, 4, 7)
    mkdir(root, MkDir(path="/d/e", mode=0o700))
    assert (tree / "d/e").stat().st_mode & 0o777 == 0o755
    with pytest.raises(UserError, match="does not exist"):
        mkdir(root, MkDir(path="/a/b", mode=0o755))
    mkdir(root, MkDir(path="a/../b/c", mode=0o711, make_parents=True))
    assert [(tree / name).stat().st_mode & 0o777 for name in ("b", "b/c")] == [0o711, 0o711]
    for path in ("/d/f", "/d/f/g"):
        with pytest.raises(UserError, match=r"[Nn]ot a directory"):
            mkdir(root, MkDir(path=path, mode=0o755, make_parents=True))
    mkdir(root, MkDir(path="/", mode=0o700, make_parents=True))
    mkdir(root, MkDir(path="/out/new", mode=0o700, make_parents=True))
    assert os.listdir(tree.parent / "outside") == []
    assert (tree / "outside/new").is_dir()


def test_mkfile(root: int, tree: Path) -> None:
    mkfile(root, MkFile(path="/l/new", mode=0o4755, data=b"data", timestamp=7 * SECOND), owner=(3, 4))
    info = (tree / "d/new").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid, info.st_mtime) == (0o755, 3, 4, 7)
    mkfile(root, MkFile(path="/d/f", mode=0o600, data=b"new"))
    assert ((tree / "d/f").read_bytes(), (tree / "d/f").stat().st_mode & 0o777) == (b"new", 0o640)
    with pytest.raises(ContextError):
        mkfile(root, MkFile(path="/no/f", mode=0o600, data=b""))
    for path in ("/", "/d", "/d/f/g", ".."):
        with pytest.raises(UserError):
            mkfile(root, MkFile(path=path, mode=0o600, data=b""))


def test_mkfile_never_writes_to_a_device_or_waits_for_a_fifo(root: int, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.symlink("null", tree / "link")
    for name in ("fifo", "null", "link"):
        with pytest.raises(UserError, match="something else"):
            mkfile(root, MkFile(path=name, mode=0o600, data=b"x"))


def test_symlink(root: int, tree: Path) -> None:
    symlink(root, Symlink(oldpath="../../anything", newpath="/l/s", timestamp=7 * SECOND), owner=(3, 4))
    info = (tree / "d/s").lstat()
    assert os.readlink(tree / "d/s") == "../../anything"
    assert (info.st_uid, info.st_gid, info.st_mtime) == (3, 4, 7)
    for path in ("/d/s", "/d", "/l", "/"):
        with pytest.raises(UserError):
            symlink(root, Symlink(oldpath="x", newpath=path))


def test_remove(root: int, tree: Path) -> None:
    remove(root, Remove(path="/l/f"))
    assert not (tree / "d/f").exists()
    remove(root, Remove(path="/l"))
    assert (tree / "d").is_dir()
    remove(root, Remove(path="d/"))
    assert sorted(os.listdir(tree)) == ["out"]
    with pytest.raises(ContextError, match="does not exist"):
        remove(root, Remove(path="/d"))
    with pytest.raises(ContextError, match="does not exist"):
        remove(root, Remove(path="/d/e/f"))
    remove(root, Remove(path="/d/e/f", allow_not_found=True))
    remove(root, Remove(path="/out"))
    assert (tree.parent / "outside").is_dir()


def test_remove_with_wildcards(root: int, tree: Path) -> None:
    for name in ("1.o", "2.o", "3.c"):
        (tree / "d" / name).touch()
    remove(root, Remove(path="/d/*.o", allow_wildcard=True))
    assert sorted(os.listdir(tree / "d")) == ["3.c", "e", "f"]
    remove(root, Remove(path="/d/*.o", allow_wildcard=True))
    remove(root, Remove(path="/*", allow_wildcard=True))
    assert os.listdir(tree) == []


@pytest.mark.parametrize("path", ["..", "../..", "a/../..", "/", ".", ""])
def test_the_root_is_never_removed(root: int, tree: Path, path: str) -> None:
    with pytest.raises(BuildError):
        remove(root, Remove(path=path))
    assert (tree / "d").is_dir()
