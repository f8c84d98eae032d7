"""What `mode=delete` deletes: all that no tree has, and nothing that a symlink leads to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builds import write
from worker.exporters.destination import Copied, make_directory, remove_others


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = make_directory(str(path))
    try:
        yield fd
    finally:
        os.close(fd)


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_what_the_tree_does_not_have_goes(tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", {"a": "", "d/x": "", "d/e/y": ""})
    target = write(
        tmp_path / "target", {"a": "", "b": "", "d/x": "", "d/z": "", "d/e/y": "", "d/e/f/g": "", "h/i/j": ""}
    )
    with opened(tree) as root, opened(target) as there:
        remove_others(there, [Copied(root=root, below=())])
    assert names(target) == names(tree)


def test_several_trees(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", {"d/a": ""}), write(tmp_path / "two", {"d/b": ""})
    target = write(
        tmp_path / "target", {"d/a": "", "d/b": "", "d/c": "", "l/d/a": "", "l/d/b": "", "m/d/a": "", "m/d/b": ""}
    )
    with opened(one) as first, opened(two) as second, opened(target) as there:
        remove_others(
            there,
            [
                Copied(root=first, below=()),
                Copied(root=second, below=()),
                Copied(root=first, below=(b"l",)),
                Copied(root=second, below=(b"m",)),
            ],
        )
    assert names(target) == ["d", "d/a", "d/b", "l", "l/d", "l/d/a", "m", "m/d", "m/d/b"]


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"precious": ""})
    tree, target = write(tmp_path / "tree", {"d/x": ""}), tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(outside)
    (target / "gone").symlink_to(outside)
    (tree / "link").symlink_to("d")
    write(target, {"link/kept": ""})  # the tree's symlink could not be told from what it leads to
    with opened(tree) as root, opened(target) as there:
        remove_others(there, [Copied(root=root, below=())])
    assert names(outside) == ["precious"]
    assert (target / "d").is_symlink()
    assert names(target) == ["d", "link"]


def test_depth_is_no_matter(tmp_path: Path) -> None:
    tree, target = tmp_path / "tree", tmp_path / "target"
    path = "/".join(["d"] * 700)
    for top in (tree, target):
        (top / path).mkdir(parents=True)
    (target / path / "x").touch()
    with opened(tree) as root, opened(target) as there:
        remove_others(there, [Copied(root=root, below=())])
    assert os.listdir(target / path) == []


def test_a_destination_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists"):
        make_directory(str(tmp_path / "file"))
