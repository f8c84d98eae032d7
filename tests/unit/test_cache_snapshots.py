"""Both snapshotters, one contract: the tree that was left is the tree that is shown, and layers are interchangeable."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.layers import Layers
from cache.opened import open_cache
from cache.overlay import OPAQUE_XATTR
from tests.fakes import cache_trees as trees
from tests.fakes.cache_mounts import opened

Step = Callable[[int], None]
Operation = tuple[str, str, object]


async def make(layers: Layers, stack: Sequence[str], step: Step) -> tuple[str, ...]:
    new = await layers.create(stack)
    with opened(new.tree) as root:
        step(root)
    return (*stack, await new.commit())


def shown(layers: Layers, stack: Sequence[str]) -> dict[str, Any]:
    with opened(layers.tree(stack)) as root:
        return trees.manifest(root)


def write(tree: dict[str, object]) -> Step:
    return lambda root: trees.write(root, tree)


def special(root: int) -> None:
    """Everything that a tree can hold."""
    trees.write(root, {"dir": {"file": b"x" * 5000, "link": "file", "deep": {"er": b""}}, "etc": {"passwd": b"root"}})
    os.link("dir/file", "hard", src_dir_fd=root, dst_dir_fd=root)
    os.mkfifo("fifo", 0o640, dir_fd=root)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=root)
    os.chown("dir/link", 7, 8, dir_fd=root, follow_symlinks=False)
    os.chown("etc", 1000, 1001, dir_fd=root)
    os.chmod("etc", 0o1750, dir_fd=root)
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT, 0o4711, dir_fd=root)
    os.ftruncate(fd, 10 << 20)
    os.pwrite(fd, b"middle", 5 << 20)
    os.fchown(fd, 12, 13)
    os.fchmod(fd, 0o4711)
    os.setxattr(fd, "user.note", b"kept")
    os.utime(fd, ns=(1_000_000_001, 2_000_000_003))
    os.close(fd)
    fd = os.open("dir", os.O_RDONLY, dir_fd=root)
    os.setxattr(fd, "user.dir", b"kept too")
    os.close(fd)


@pytest.fixture(params=["overlay", "copy"])
def snapshotter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_what_was_left_is_shown(tmp_path: Path, snapshotter: str) -> None:
    async with open_cache(tmp_path / "root", snapshotter=snapshotter) as cache:
        first = await make(cache.layers, (), special)
        before = shown(cache.layers, first)
        assert before["hard"][5] == before["dir/file"][5] == ("dir/file", "hard")
        nothing = await make(cache.layers, first, lambda root: None)
        assert shown(cache.layers, nothing) == before
        assert os.listdir(cache.root / "layers" / nothing[-1] / "fs") == []
        sparse = (cache.root / "layers" / first[-1] / "fs" / "sparse").stat()
        assert sparse.st_blocks * 512 < 1 << 20

        def copy_up(root: int) -> None:
            for name in ("sparse", "fifo", "null"):
                os.chmod(name, 0o600, dir_fd=root)

        changed = await make(cache.layers, nothing, copy_up)
        after = shown(cache.layers, changed)
        assert after["sparse"] == (before["sparse"][0], 0o600, *before["sparse"][2:])
        assert sorted(os.listdir(cache.root / "layers" / changed[-1] / "fs")) == ["fifo", "null", "sparse"]
        assert after["dir"] == before["dir"]


async def test_deletions_and_replacements(tmp_path: Path, snapshotter: str) -> None:
    async with open_cache(tmp_path / "root", snapshotter=snapshotter) as cache:
        stack = await make(cache.layers, (), write({"a": b"1", "d": {"x": b"2", "y": {"z": b"3"}}, "e": {"f": b"4"}}))
        stack = await make(cache.layers, stack, write({"a": None, "d": {"y": None}}))
        assert sorted(shown(cache.layers, stack)) == [".", "d", "d/x", "e", "e/f"]
        whiteout = (cache.root / "layers" / stack[-1] / "fs" / "a").lstat()
        assert stat.S_ISCHR(whiteout.st_mode)
        assert whiteout.st_rdev == 0

        def replace(root: int) -> None:
            trees.write(root, {"d": None, "e": None})
            trees.write(root, {"d": b"now a file", "e": {"new": b""}, "a": {"dir": b""}})

        stack = await make(cache.layers, stack, replace)
        assert sorted(shown(cache.layers, stack)) == [".", "a", "a/dir", "d", "e", "e/new"]
        stack = await make(cache.layers, stack, write({"d": None, "e": {"new": None}}))
        stack = await make(cache.layers, stack, write({"d": {"again": b""}}))
        assert sorted(shown(cache.layers, stack)) == [".", "a", "a/dir", "d", "d/again", "e"]


async def test_a_layer_alone_shows_no_whiteouts(tmp_path: Path, snapshotter: str) -> None:
    async with open_cache(tmp_path / "root", snapshotter=snapshotter) as cache:
        base = await make(cache.layers, (), write({"a": b"1", "d": {"x": b"2"}}))
        stack = await make(cache.layers, base, write({"a": None, "d": {"x": None, "n": b"new"}}))
        assert sorted(shown(cache.layers, stack[1:])) == [".", "d", "d/n"]
        on_part = await make(cache.layers, stack[1:], write({"m": b""}))
        assert sorted(shown(cache.layers, on_part)) == [".", "d", "d/n", "m"]


async def test_layers_of_one_serve_the_other(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root", snapshotter="overlay") as cache:
        stack = await make(cache.layers, (), write({"d": {"below": b""}, "k": b""}))

        def replace(root: int) -> None:
            trees.write(root, {"d": None})
            trees.write(root, {"d": {"above": b""}})

        stack = await make(cache.layers, stack, replace)
        assert os.getxattr(cache.root / "layers" / stack[-1] / "fs" / "d", OPAQUE_XATTR) == b"y"
        expected = shown(cache.layers, stack)
        cache.layers.hold(stack)
        async with open_cache(tmp_path / "root", snapshotter="copy") as other:
            assert shown(other.layers, stack) == expected
            more = await make(other.layers, stack, write({"d": {"above": None, "more": b"!"}}))
            theirs = shown(other.layers, more)
            other.layers.hold(more)
            assert shown(cache.layers, more) == theirs
        assert sorted(theirs) == [".", "d", "d/more", "k"]


async def test_the_root_of_the_tree_keeps_its_attributes(tmp_path: Path, snapshotter: str) -> None:
    async with open_cache(tmp_path / "root", snapshotter=snapshotter) as cache:

        def own(root: int) -> None:
            os.fchown(root, 5, 6)
            os.fchmod(root, 0o711)

        stack = await make(cache.layers, (), own)
        stack = await make(cache.layers, stack, write({"a": b""}))
        assert shown(cache.layers, stack)["."] == ("dir", 0o711, 5, 6, b"")


async def test_size_and_mtime_put_back_are_no_disguise(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root", snapshotter="copy") as cache:
        stack = await make(cache.layers, (), write({"f": b"abc", "g": b"def"}))

        def forge(root: int) -> None:
            info = os.stat("f", dir_fd=root)
            trees.write_file(root, "f", b"xyz")
            os.utime("f", ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=root)

        stack = await make(cache.layers, stack, forge)
        assert os.listdir(cache.root / "layers" / stack[-1] / "fs") == ["f"]
        assert shown(cache.layers, stack)["f"][3] == (b"xyz", b"")


async def test_more_layers_than_an_overlay_takes(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root", snapshotter="overlay") as cache:
        stack: tuple[str, ...] = ()
        for number in range(520):
            new = await cache.layers.create(stack)
            (new.directory / f"f{number % 50}").write_bytes(b"%d" % number)
            stack = (*stack, await new.commit())
            if number == 498:
                assert len(cache.layers.tree(stack).lowers) == 499
        tree = cache.layers.tree(stack)
        assert len(tree.lowers) == 121
        listing = shown(cache.layers, stack)
        assert len(listing) == 51
        assert listing["f19"][3] == (b"519", b"")
        new = await cache.layers.create(stack)
        with opened(new.tree) as root:
            trees.write(root, {"f3": None, "top": b""})
        assert len(shown(cache.layers, (*stack, await new.commit()))) == 51


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
OPERATIONS = st.one_of(
    st.tuples(st.just("file"), PATHS, st.binary(max_size=8)),
    st.tuples(st.just("mkdir"), PATHS, st.none()),
    st.tuples(st.just("symlink"), PATHS, st.none()),
    st.tuples(st.just("remove"), PATHS, st.none()),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o600, 0o755, 0o4755])),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
)


def perform_all(operations: Sequence[Operation], root: int) -> None:
    for operation in operations:
        perform(root, operation)


def perform(root: int, operation: Operation) -> None:
    """What can be done is done; both trees are the same, so the same fails in both."""
    kind, path, argument = operation
    parent, _, name = path.rpartition("/")
    try:
        fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    except OSError:
        return
    try:
        if kind in ("file", "chmod") and is_linked(fd, name):
            trees.remove(fd, name)
        if kind == "file":
            trees.write_file(fd, name, bytes(argument))
            os.utime(name, ns=(5, 5), dir_fd=fd)
        elif kind == "mkdir":
            os.mkdir(name, dir_fd=fd)
        elif kind == "symlink":
            os.symlink("target", name, dir_fd=fd)
            os.utime(name, ns=(5, 5), dir_fd=fd, follow_symlinks=False)
        elif kind == "remove":
            trees.remove(fd, name)
        elif kind == "chmod":
            os.chmod(name, int(str(argument)), dir_fd=fd)
        elif kind == "rename":
            rename(root, path, str(argument))
        else:
            os.link(path, str(argument), src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
    except OSError:
        return
    finally:
        os.close(fd)


def is_linked(fd: int, name: str) -> bool:
    """Changing one name of a lower layer's file changes the others in a copy, and not in an overlay (index=off)."""
    if not trees.exists(fd, name):
        return False
    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)


def rename(root: int, source: str, target: str) -> None:
    """Files only: overlayfs without redirect_dir refuses to rename a directory of a lower layer (EXDEV)."""
    if not stat.S_ISDIR(os.stat(source, dir_fd=root, follow_symlinks=False).st_mode):
        os.rename(source, target, src_dir_fd=root, dst_dir_fd=root)


@given(st.lists(st.lists(OPERATIONS, max_size=8), min_size=1, max_size=4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_gives_one_tree(tmp_path_factory: pytest.TempPathFactory, steps: list[list[Operation]]) -> None:
    root = tmp_path_factory.mktemp("history")

    async def main() -> None:
        async with (
            open_cache(root / "overlay", snapshotter="overlay") as overlay,
            open_cache(root / "copy", snapshotter="copy") as copy,
        ):
            stacks: dict[str, tuple[str, ...]] = {"overlay": (), "copy": ()}
            for operations in steps:
                for name, cache in (("overlay", overlay), ("copy", copy)):
                    stacks[name] = await make(cache.layers, stacks[name], partial(perform_all, operations))
                with opened(overlay.layers.tree(stacks["overlay"])) as fd:
                    kernel = trees.manifest(fd, links=False)
                with opened(copy.layers.tree(stacks["copy"])) as fd:
                    ours = trees.manifest(fd, links=False)
                assert ours == kernel

    trio.run(main)
