"""Content digests: what must count does, what must not does not, and nothing is read twice."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.errors import ContextError, UserError
from cache import filehash
from cache.contenthash import content_digest
from cache.localindex import LocalIndex
from cache.opened import open_cache
from cache.selection import PatternFilter, Selector, Verdict
from llb.globs import name_pattern
from tests.fakes import cache_trees as trees
from tests.fakes.cache_mounts import opened

TREE = {
    "a": {"x": b"1", "y": {"z": b"2"}, "n.txt": b"n", "m.txt": b"m"},
    "same": {"x": b"1", "y": {"z": b"2"}, "n.txt": b"n", "m.txt": b"m"},
    "link": "a",
    "abs": "/a/y",
    "up": "../../a",
    "loop": "loop2",
    "loop2": "loop",
    "filelink": "a/x",
    "dangling": "nowhere",
    "b1": {"f": b"1"},
    "b2": {"f": b"2"},
    "star*": b"literal",
}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "tree").mkdir()
    with directory(tmp_path / "tree") as fd:
        trees.write(fd, TREE)
        yield fd


@contextmanager
def directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def digest(root: int, *selectors: Selector | str) -> Digest:
    return content_digest(root, [s if isinstance(s, Selector) else Selector(path=s) for s in selectors])


def changes(root: int, change: Callable[[], object], *selectors: Selector | str) -> bool:
    before = digest(root, *selectors)
    change()
    return digest(root, *selectors) != before


def test_the_name_of_what_is_selected_does_not_count(root: int) -> None:
    assert digest(root, "a") == digest(root, "same") == digest(root, "/same/") == digest(root, "./x/../a")
    assert digest(root, "a") != digest(root, "b1")
    assert digest(root, "a/x") == digest(root, "b1/f")
    assert digest(root, "a/x") != digest(root, "b2/f")


def test_names_below_it_do(root: int) -> None:
    assert changes(root, lambda: os.rename("a/x", "a/w", src_dir_fd=root, dst_dir_fd=root), "a")


def test_times_do_not_count(root: int) -> None:
    assert not changes(root, lambda: os.utime("a/x", (1, 2), dir_fd=root), "/")


def at(name: str, root: int) -> str:
    return f"/proc/self/fd/{root}/{name}"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: trees.write_file(root, "a/x", b"2"),
        lambda root: os.chmod("a/x", 0o4644, dir_fd=root),
        lambda root: os.chmod("a/y", 0o711, dir_fd=root),
        lambda root: os.chown("a/x", 1, 0, dir_fd=root),
        lambda root: os.chown("a/y", 0, 1, dir_fd=root),
        lambda root: os.setxattr(at("a/x", root), "user.a", b"1"),
        lambda root: os.setxattr(at("a/y", root), "user.a", b"1"),
        lambda root: os.setxattr(at("a/x", root), "security.capability", bytes.fromhex("0100000200040000") + bytes(12)),
        lambda root: os.mkdir("a/empty", dir_fd=root),
        lambda root: os.symlink("x", "a/link", dir_fd=root),
        lambda root: os.mkfifo("a/fifo", dir_fd=root),
        lambda root: os.unlink("a/n.txt", dir_fd=root),
    ],
)
def test_what_a_step_can_see_counts(root: int, change: Callable[[int], object]) -> None:
    assert changes(root, lambda: change(root), "a")


def test_kinds_and_targets_and_numbers_count(root: int) -> None:
    trees.write(root, {"k": {"e": "x"}})
    assert changes(root, lambda: (os.unlink("k/e", dir_fd=root), os.symlink("y", "k/e", dir_fd=root)), "k")
    assert changes(root, lambda: (os.unlink("k/e", dir_fd=root), device(root, 5)), "k")
    assert changes(root, lambda: (os.unlink("k/e", dir_fd=root), device(root, 6)), "k")


def device(root: int, minor: int) -> None:
    os.mknod("k/e", stat.S_IFCHR | 0o600, os.makedev(1, minor), dir_fd=root)


def test_overlay_notes_and_labels_do_not_count(root: int) -> None:
    assert not changes(root, lambda: os.setxattr(at("a/y", root), "trusted.overlay.opaque", b"y"), "a")
    assert changes(root, lambda: os.setxattr(at("a/y", root), "trusted.other", b"y"), "a")


def test_links_on_the_way_are_followed_inside_the_tree(root: int) -> None:
    for path in ("link/y", "up/y", "abs", "../../link/y", "abs/../link/y", "link/./y/"):
        followed = Selector(path=path, follow_links=True)
        assert digest(root, followed) == digest(root, Selector(path="a/y", follow_links=True)), path
    assert digest(root, "link/y/z") == digest(root, "a/y/z")
    assert digest(root, "link") != digest(root, Selector(path="link", follow_links=True))
    assert digest(root, Selector(path="filelink", follow_links=True)) == digest(root, "a/x")


@pytest.mark.parametrize("path", ["missing", "a/missing/x", "a/x/y", "loop/x", "dangling/x"])
def test_what_is_not_there_is_an_error(root: int, path: str) -> None:
    with pytest.raises(ContextError, match="not found"):
        digest(root, path)


def test_a_loop_or_a_dangling_link_is_an_error_when_followed(root: int) -> None:
    for path in ("loop", "dangling"):
        digest(root, path)
        with pytest.raises(ContextError, match="not found"):
            digest(root, Selector(path=path, follow_links=True))


def wild(path: str, **more: bool) -> Selector:
    return Selector(path=path, wildcard=True, **more)


def test_of_wildcards_the_matched_names_count(root: int) -> None:
    texts = digest(root, wild("a/*.txt"))
    assert (
        texts
        == digest(root, wild("same/*.txt"))
        == digest(root, wild("link/*.txt"))
        == digest(root, wild("/a/[mn].t?t"))
    )
    assert texts != digest(root, wild("a/*"))
    assert digest(root, wild("b?/f")) != digest(root, wild("b1/?"))
    assert digest(root, wild("nothing*")) == digest(root, wild("a/none*"))
    assert changes(root, lambda: os.rename("a/n.txt", "a/o.txt", src_dir_fd=root, dst_dir_fd=root), wild("a/*.txt"))


def test_without_a_wildcard_in_it_a_wildcard_selector_is_a_path(root: int) -> None:
    assert digest(root, wild("a/x")) == digest(root, "a/x")
    assert digest(root, "star*") == content_digest(root, [Selector(path="star*")])


def test_matched_links_are_followed_if_asked_for(root: int) -> None:
    plain, followed = wild("li*k"), wild("li*k", follow_links=True)
    assert not changes(root, lambda: trees.write_file(root, "a/x", b"new"), plain)
    assert changes(root, lambda: trees.write_file(root, "a/x", b"newer"), followed)


@pytest.mark.parametrize("pattern", ["a[", "[]a]", "[b-a]", "[a", "x\\", "[-a]"])
def test_bad_patterns_are_the_users(pattern: str) -> None:
    with pytest.raises(UserError, match="pattern"):
        name_pattern(pattern)


def test_includes_and_excludes(root: int) -> None:
    only = Selector(path="a", include=("*.txt",))
    assert not changes(root, lambda: trees.write_file(root, "a/x", b"new"), only)
    assert not changes(root, lambda: os.chmod("a/y", 0o700, dir_fd=root), only)
    assert changes(root, lambda: trees.write_file(root, "a/n.txt", b"new"), only)
    deep = Selector(path="a", include=("y/z",))
    assert changes(root, lambda: os.chmod("a/y", 0o711, dir_fd=root), deep)  # the parent of what is included
    without = Selector(path="a", exclude=("y", "!y/z"))
    assert changes(root, lambda: trees.write_file(root, "a/y/z", b"new"), without)
    assert not changes(root, lambda: trees.write_file(root, "a/y/other", b"new"), without)
    assert digest(root, Selector(path="a", exclude=("*.txt",))) != digest(root, "a")


def test_required_paths(root: int) -> None:
    digest(root, Selector(path="/", include=("a/x",), required=("a/x",)))
    digest(root, Selector(path="/a", wildcard=True, include=("x",), required=("/a/x",)))
    with pytest.raises(ContextError, match="b9"):
        digest(root, Selector(path="/", include=("a/x", "b9"), required=("a/x", "b9")))


def test_the_order_of_selectors_does_not_count(root: int) -> None:
    assert digest(root, "a", "b1") == digest(root, "b1", "a", "a")
    assert digest(root, "a", "b1") != digest(root, "a", "b2")


def test_a_filter_prunes_only_what_cannot_hold_anything() -> None:
    keep = PatternFilter(exclude=("node_modules", "src", "!src/keep/*"))
    assert keep("node_modules", True) is Verdict.PRUNE
    assert keep("src", True) is Verdict.SKIP
    assert keep("src/other", True) is not Verdict.KEEP
    assert keep("src/keep", True) is Verdict.SKIP
    assert keep("src/keep/file", False) is Verdict.KEEP
    assert keep("readme", False) is Verdict.KEEP


FILES = st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=4), max_size=3)
NESTED = st.recursive(
    FILES,
    lambda inner: st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=3) | inner, max_size=3),
    max_leaves=8,
)


@given(NESTED, NESTED)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equal_trees_and_only_they_have_equal_digests(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, object], two: dict[str, object]
) -> None:
    base = tmp_path_factory.mktemp("pair")
    found = []
    for name, tree in (("one", one), ("two", two)):
        (base / name).mkdir()
        with directory(base / name) as fd:
            trees.write(fd, tree)
            found.append(content_digest(fd))
    assert (found[0] == found[1]) == (one == two)


async def test_a_stack_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = filehash.hash_open_file
    monkeypatch.setattr(filehash, "hash_open_file", lambda fd, size: reads.append(size) or read(fd, size))
    async with open_cache(tmp_path / "root", snapshotter="overlay") as cache:
        stack: tuple[str, ...] = ()
        for number in range(2):
            new = await cache.layers.create(stack)
            with opened(new.tree) as fd:
                trees.write(fd, {f"f{number}": b"x" * (number + 1)})
            stack = (*stack, await new.commit())
        assert cache.contenthash.known(stack) is None
        with opened(cache.layers.tree(stack[:1])) as fd:
            await cache.contenthash.digest(stack[:1], fd)
        assert reads == [1]
        with opened(cache.layers.tree(stack)) as fd:
            found = await cache.contenthash.digest(stack, fd)
        assert reads == [1, 2]  # the file of the layer below was known
        assert cache.contenthash.known(stack) == found
        assert cache.contenthash.known(stack, [Selector(path="f1")]) is None
        with opened(cache.layers.tree(stack)) as fd:
            await cache.contenthash.digest(stack, fd, [Selector(path="f1")])
            assert await cache.contenthash.digest(stack, -1) == found
            assert content_digest(fd) == found
        assert reads[2:] == [1, 2]
    async with open_cache(tmp_path / "root") as cache:
        assert cache.contenthash.known(stack) == found


async def test_a_scan_and_a_snapshot_agree(root: int, tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root") as cache:
        index = LocalIndex(cache.db, "boot")
        scan = await index.scan(tmp_path / "tree")
        try:
            for selectors in (
                [Selector()],
                [Selector(path="a")],
                [wild("*/x")],
                [Selector(path="link", follow_links=True)],
            ):
                assert await scan.content_digest(selectors) == content_digest(root, selectors)
            os.chown("a/x", 1000, 1000, dir_fd=root)
            assert await scan.content_digest([Selector(path="same")]) == content_digest(root, [Selector(path="same")])
            with pytest.raises(ContextError, match="not found"):
                await scan.content_digest([Selector(path="nothing")])
        finally:
            scan.close()


def test_no_wildcard_takes_long(root: int) -> None:
    trees.write(root, {"a" * 250: b"", "d" * 250: {"a" * 250: b""}})
    nothing = digest(root, Selector(path="/none*", wildcard=True))
    begin = time.process_time()
    for pattern in ("*a" * 60 + "b", "*?" * 60 + "b", "*d" * 60 + "*/" + "*a" * 60 + "b"):
        assert digest(root, Selector(path=f"/{pattern}", wildcard=True)) == nothing
    assert time.process_time() - begin < 1
