"""Follow paths: what a build needs of a directory when symlinks lead through it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from buildengine.errors import ContextError, UserError
from worker.sources.local import follow_links, include_patterns
from worker.sources.origin import LocalOrigin

TREE: Mapping[str, str | None] = {  # a file, or where a symlink leads
    "file": None,
    "dir/file": None,
    "dir/sub/file": None,
    "link": "file",
    "dirlink": "dir",
    "dir/up": "../file",
    "dir/absolute": "/dir/sub",
    "dir/out": "../../../../etc/passwd",
    "etc/passwd": None,
    "loop1": "loop2",
    "loop2": "loop1",
    "self": "self/x",
    "dangling": "gone",
    "x.lnk": "dir/file",
    "y.lnk": "dir/sub",
    "chain": "link",
    "top": ".",
    "[a]": None,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, target in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        if target is None:
            path.write_text("")
        else:
            path.symlink_to(target)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["file"], ["file"]),
        (["/file", "./file", "dir/../file"], ["file"]),
        (["dir", "dir/file"], ["dir"]),
        (["nowhere", "no/where"], ["no/where", "nowhere"]),
        (["file/below"], ["file/below"]),
        (["link"], ["file", "link"]),
        (["chain"], ["chain", "file", "link"]),
        (["dirlink/file"], ["dir/file", "dirlink"]),
        (["dirlink/up"], ["dir/up", "dirlink", "file"]),
        (["dir/absolute/file"], ["dir/absolute", "dir/sub/file"]),
        (["dir/out"], ["dir/out", "etc/passwd"]),
        (["../../file"], ["file"]),
        (["loop1"], ["loop1", "loop2"]),
        (["loop1/x/y"], ["loop1", "loop2"]),
        (["self"], ["self"]),
        (["dangling"], ["dangling", "gone"]),
        (["*.lnk"], ["*.lnk", "dir/file", "dir/sub"]),
        (["*.lnk/deeper"], ["*.lnk", "dir/file/deeper", "dir/sub/deeper"]),
        (["d*"], ["d*", "dir", "gone"]),
        (["\\[a]"], ["\\[a]"]),
        (["dir/*"], ["dir/*", "dir/sub", "etc/passwd", "file"]),
        (["."], []),
        (["/"], []),
        (["file", ".."], []),
        (["top"], []),
        (["top/file"], ["file", "top"]),
        ([], []),
    ],
)
def test_what_follow_paths_lead_to(root: Path, paths: list[str], expected: list[str]) -> None:
    fd = os.open(root, os.O_RDONLY)
    try:
        assert list(follow_links(fd, paths)) == expected
    finally:
        os.close(fd)


def test_follow_paths_are_added_to_the_patterns(root: Path) -> None:
    def included(**fields: tuple[str, ...]) -> tuple[str, ...]:
        return include_patterns(str(root), LocalOrigin(name="context", **fields))

    assert included() == ()
    assert included(include_patterns=("a*",)) == ("a*",)
    assert included(follow_paths=("link",)) == ("file", "link")
    assert included(include_patterns=("z", "dir"), follow_paths=("dir/up",)) == ("z", "dir", "file")
    assert included(follow_paths=("link", ".")) == ()
    assert included(include_patterns=("a",), follow_paths=(".",)) == ("a",)


def test_what_cannot_be_read(root: Path) -> None:
    with pytest.raises(ContextError, match="cannot read the directory"):
        include_patterns(str(root / "file"), LocalOrigin(name="context", follow_paths=("x",)))
    with pytest.raises(UserError, match="syntax error in pattern"):
        include_patterns(str(root), LocalOrigin(name="context", follow_paths=("[",)))
