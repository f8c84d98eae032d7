"""Wildcards in source paths, and paths resolved inside a root."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildengine.errors import UserError
from llb.globs import name_pattern
from worker.layers.rootpath import Ownership, lstat, make_directories, resolve
from worker.layers.select import matches


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    tree = tmp_path / "root"
    for name in ("a/x.go", "a/y.go", "a/z.c", "b/x.go", "b/deep/x.go", "we*rd/f", "[a]/f", "étage/f"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    os.symlink("a", tree / "link")
    os.symlink("/b", tree / "absolute")
    os.symlink("../../..", tree / "up")
    os.symlink("circle", tree / "circle")
    os.symlink("/not/there", tree / "dangling")
    (tmp_path / "outside").write_text("")
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/a/*.go", ["/a/x.go", "/a/y.go"]),
        ("a/?.go", ["/a/x.go", "/a/y.go"]),
        ("*/x.go", ["/a/x.go", "/b/x.go"]),
        ("*/*", ["/[a]/f", "/a/x.go", "/a/y.go", "/a/z.c", "/b/deep", "/b/x.go", "/we*rd/f", "/étage/f"]),
        ("/[ab]", ["/a", "/b"]),
        ("/[^b-z]", ["/a"]),
        (r"/we\*r?", ["/we*rd"]),
        ("/[[]a]", ["/[a]"]),
        ("/?tage", ["/étage"]),
        ("/link/*.c", ["/a/z.c"]),
        ("/absolute/x*", ["/b/x.go"]),
        ("/l*k/z.c", []),
        ("/l*k", ["/link"]),
        ("/a/../b/*.go", ["/b/x.go"]),
        ("/../../*/z.c", ["/a/z.c"]),
        ("/up/*/z.c", ["/a/z.c"]),
        ("/a/*/nothing", []),
        ("/plain/path/", ["/plain/path"]),
        (r"/esc\*aped", [r"/esc\*aped"]),
    ],
)
def test_wildcards(root: int, pattern: str, found: list[str]) -> None:
    assert list(matches(root, pattern, wildcards=True, follow=True)) == found


def test_without_wildcards_a_path_is_itself(root: int) -> None:
    assert matches(root, "/a/*.go/", wildcards=False, follow=True) == ("/a/*.go/",)


def test_a_symlink_before_the_wildcard_is_followed_only_when_asked(root: int) -> None:
    with pytest.raises(OSError, match="link"):
        matches(root, "/link/*", wildcards=True, follow=False)


@pytest.mark.parametrize("pattern", ["/[", "/[a", "/[]a]*", "/[z-a]", "/a*\\", "/[a-", "/[\\"])
def test_bad_patterns(root: int, pattern: str) -> None:
    with pytest.raises(UserError, match="pattern"):
        matches(root, pattern, wildcards=True, follow=True)


def test_no_pattern_takes_long() -> None:
    pattern = name_pattern("*a" * 60 + "b")
    start = time.process_time()
    assert pattern.fullmatch("a" * 255) is None
    assert time.process_time() - start < 0.5
    assert name_pattern("*ab*ab").fullmatch("xabyabab")


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/", ""),
        ("a/x.go", "a/x.go"),
        ("/link/x.go", "a/x.go"),
        ("absolute/x.go", "b/x.go"),
        ("/up/up/a", "a"),
        ("a/../../../b", "b"),
        ("/link/../b", "b"),
        ("/dangling/new", "not/there/new"),
        ("/no/such/../path", "no/path"),
        ("/no/../link/x", "a/x"),
        ("link", "a"),
    ],
)
def test_where_paths_lead(root: int, path: str, leads_to: str) -> None:
    assert os.fsdecode(b"/".join(resolve(root, path))) == leads_to


def test_a_last_symlink_can_be_meant_itself(root: int) -> None:
    assert resolve(root, "/absolute/../link", follow_last=False) == (b"link",)
    assert resolve(root, "/link/x.go", follow_last=False) == (b"a", b"x.go")


def test_circles_and_files_on_the_way(root: int) -> None:
    with pytest.raises(UserError, match="too many symbolic links"):
        resolve(root, "/circle/x")
    with pytest.raises(NotADirectoryError):
        resolve(root, "/a/x.go/y/z")


def test_lstat_of_what_is_not_there(root: int) -> None:
    assert lstat(root, (b"nothing",)) is None
    assert lstat(root, (b"a", b"x.go", b"y")) is None
    assert lstat(root, ()) is not None


def test_directories_are_made_with_what_they_should_have(root: int, tmp_path: Path) -> None:
    given = Ownership(owner=(5, 6), timestamp=7_000_000_000)
    old = os.umask(0o077)
    try:
        made = make_directories(root, (b"a", b"new", b"er"), 0o775, given)
    finally:
        os.umask(old)
    assert made == [(b"a", b"new"), (b"a", b"new", b"er")]
    info = (tmp_path / "root" / "a" / "new" / "er").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid, info.st_mtime) == (0o775, 5, 6, 7)
    assert make_directories(root, (b"a", b"new"), 0o700, given) == []
    with pytest.raises(UserError, match="not a directory"):
        make_directories(root, (b"a", b"x.go", b"y"), 0o755, given)
    with pytest.raises(UserError, match="not a directory"):
        make_directories(root, (b"link", b"y"), 0o755, given)
