"""LLB's copy action: where files go, what they become, patterns, links, and trees that mean harm."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from buildengine.errors import BuildError, ContextError, UserError
from llb.ops import CopyAction
from llb.patterns import PatternMatcher
from tests.unit.layers_trees import describe
from worker.layers.copyrules import CopiedFile, Reuse, Visible
from worker.layers.copytree import copy

SECOND = 1_000_000_000
OLD = 1_600_000_000 * SECOND + 123
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


class Trees:
    """A source and a target directory."""

    def __init__(self, base: Path) -> None:
        self.source, self.target = base / "source", base / "target"
        for tree in (self.source, self.target):
            tree.mkdir()
        self._fds = [os.open(tree, os.O_RDONLY | os.O_DIRECTORY) for tree in (self.source, self.target)]

    def write(self, tree: Path, *names: str, mode: int = 0o644) -> None:
        for name in names:
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(os.fsencode(name))
                path.chmod(mode)
        for directory, _, files in os.walk(tree, topdown=False):
            for name in [*files, "."]:
                os.utime(Path(directory, name), ns=(OLD, OLD), follow_symlinks=False)

    async def copy(
        self,
        src: str,
        dest: str,
        *,
        owner: tuple[int, int] | None = None,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        reuse: Reuse | None = None,
        digests: bool = False,
        visible: Visible | None = None,
        **action: object,
    ) -> tuple[CopiedFile, ...]:
        """With the defaults of a Dockerfile's COPY."""
        usual = {"dir_copy_contents": True, "create_dest_path": True, "allow_wildcard": True, "follow_symlink": True}
        done = await copy(
            self._fds[0],
            self._fds[1],
            CopyAction(src=src, dest=dest, **(usual | action)),
            owner=owner,
            include=PatternMatcher(include) if include else None,
            exclude=PatternMatcher(exclude) if exclude else None,
            reuse=reuse,
            digests=digests,
            visible=visible,
        )
        return done.files

    def names(self) -> list[str]:
        return sorted(name for name, node in describe(self.target).items() if not stat.S_ISDIR(node.mode))

    def stat(self, name: str) -> os.stat_result:
        return (self.target / name).lstat()

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    trees = Trees(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    yield trees
    assert len(os.listdir("/proc/self/fd")) == before
    trees.close()


# --- where files go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("src", "dest", "there", "found"),
    [
        ("f", "/g", (), ["g"]),
        ("f", "/d/", (), ["d/f"]),
        ("f", "/d", ("d/",), ["d/f"]),
        ("f", "/a/b/c/", (), ["a/b/c/f"]),
        ("f", "/a/b/c", (), ["a/b/c"]),
        ("f", "/", (), ["f"]),
        ("f", "/old", ("old",), ["old"]),
        ("dir", "/", (), ["deep/y", "x"]),
        ("dir", "/out", (), ["out/deep/y", "out/x"]),
        ("dir/", "/out/", (), ["out/deep/y", "out/x"]),
        ("dir", "/out", ("out/old",), ["out/deep/y", "out/old", "out/x"]),
        ("/", "/all/", (), ["all/dir/deep/y", "all/dir/x", "all/f", "all/g1", "all/g2"]),
        (".", "/all/", (), ["all/dir/deep/y", "all/dir/x", "all/f", "all/g1", "all/g2"]),
        ("g*", "/d/", (), ["d/g1", "d/g2"]),
        ("*/x", "/d/", (), ["d/x"]),
        ("di?/deep", "/d/", (), ["d/y"]),
        ("../../f", "/../../g", (), ["g"]),
        ("f", "/d/.", (), ["d/f"]),
    ],
)
async def test_where_files_go(trees: Trees, src: str, dest: str, there: tuple[str, ...], found: list[str]) -> None:
    trees.write(trees.source, "f", "dir/x", "dir/deep/y", "g1", "g2")
    trees.write(trees.target, *there)
    await trees.copy(src, dest)
    assert trees.names() == found


@pytest.mark.parametrize(
    ("src", "there", "found"),
    [
        ("dir", (), ["out/x"]),
        ("dir", ("out/old",), ["out/dir/x", "out/old"]),
        ("dir/", ("out/old",), ["out/dir/x", "out/old"]),
        ("dir/.", ("out/old",), ["out/old", "out/x"]),
    ],
)
async def test_directories_themselves(trees: Trees, src: str, there: tuple[str, ...], found: list[str]) -> None:
    trees.write(trees.source, "dir/x")
    trees.write(trees.target, *there)
    await trees.copy(src, "/out", dir_copy_contents=False, allow_wildcard=False)
    assert trees.names() == found


async def test_symlinks_in_the_destination_are_followed_inside(trees: Trees) -> None:
    trees.write(trees.source, "f", "dir/x")
    trees.write(trees.target, "real/old")
    os.symlink("/real", trees.target / "abs")
    os.symlink("../../../real", trees.target / "up")
    os.symlink("/made/on/demand", trees.target / "dangling")
    await trees.copy("f", "/abs/1/")
    await trees.copy("dir", "/up")
    await trees.copy("f", "/dangling/")
    assert trees.names() == ["abs", "dangling", "made/on/demand/f", "real/1/f", "real/old", "real/x", "up"]


async def test_symlinks_in_the_source(trees: Trees) -> None:
    trees.write(trees.source, "dir/x")
    os.symlink("dir", trees.source / "l")
    os.symlink("/dir/x", trees.source / "lx")
    os.symlink("../../../etc", trees.source / "dir" / "out")
    await trees.copy("l", "/1/")
    await trees.copy("lx", "/2/")
    await trees.copy("lx", "/3/", follow_symlink=False)
    await trees.copy("l/x", "/4/", follow_symlink=False)
    assert trees.names() == ["1/out", "1/x", "2/lx", "3/lx", "4/x"]
    assert (trees.target / "2/lx").read_text() == "dir/x"
    assert os.readlink(trees.target / "3/lx") == "/dir/x"
    assert os.readlink(trees.target / "1/out") == "../../../etc"


async def test_what_is_not_there(trees: Trees) -> None:
    trees.write(trees.source, "f")
    for src in ("nothing", "f/x", "no*thing", "nothing/*"):
        with pytest.raises(BuildError, match=r"not found|[Nn]o such file|Not a directory"):
            await trees.copy(src, "/d/")
    await trees.copy("no*thing", "/d/", allow_empty_wildcard=True)
    with pytest.raises(UserError, match="directory does not exist"):
        await trees.copy("f", "/no/such/place", create_dest_path=False)
    await trees.copy("f", "/place", create_dest_path=False)
    assert trees.names() == ["place"]


@pytest.mark.parametrize("replace", [False, True])
async def test_files_and_directories_in_each_others_place(trees: Trees, replace: bool) -> None:
    trees.write(trees.source, "1/a", "2/a/x", "3/l/x")
    trees.write(trees.target, "1/a/old", "2/a", "3/real/old")
    os.symlink("real", trees.target / "3" / "l")
    for name in "123":
        if not replace:
            with pytest.raises(UserError, match="cannot"):
                await trees.copy(name, f"/{name}")
        else:
            await trees.copy(name, f"/{name}", always_replace_existing_dest_paths=True)
    if replace:
        assert trees.names() == ["1/a", "2/a/x", "3/l/x", "3/real/old"]
    else:
        assert trees.names() == ["1/a/old", "2/a", "3/l", "3/real/old"]


# --- what they become -------------------------------------------------------------------------------------


async def test_all_that_belongs_to_a_file_is_kept(trees: Trees) -> None:
    trees.write(trees.source, "d/f", "d/g", "d/sub/h")
    os.chown(trees.source / "d/f", 5, 6)
    os.chmod(trees.source / "d/f", 0o6755)
    os.chown(trees.source / "d/sub", 7, 8)
    os.chmod(trees.source / "d/sub", 0o2711)
    os.setxattr(trees.source / "d/f", "security.capability", CAPABILITY)
    os.setxattr(trees.source / "d/sub", "user.x", b"1")
    os.setxattr(trees.source / "d/g", "trusted.overlay.redirect", b"/evil")
    os.link(trees.source / "d/f", trees.source / "d/sub/link")
    os.symlink("f", trees.source / "d/s")
    os.mkfifo(trees.source / "d/p", 0o640)
    os.mknod(trees.source / "d/b", stat.S_IFBLK | 0o640, os.makedev(7, 3))
    trees.write(trees.source, "d/f2")
    (trees.source / "d/empty").touch()
    os.utime(trees.source / "d", ns=(OLD, OLD))
    await trees.copy("/d", "/d")
    copied, source = describe(trees.target / "d"), describe(trees.source / "d")
    assert copied == source
    assert os.listxattr(trees.target / "d/g") == []
    assert trees.stat("d").st_mtime_ns == OLD


async def test_a_socket_becomes_an_empty_file(trees: Trees) -> None:
    os.mknod(trees.source / "s", stat.S_IFSOCK | 0o600)
    await trees.copy("/", "/")
    assert (stat.S_ISREG(trees.stat("s").st_mode), trees.stat("s").st_size) == (True, 0)


async def test_a_new_target_is_roots_and_an_old_one_keeps_what_it_has(trees: Trees) -> None:
    trees.write(trees.source, "d/f", "d/sub/g")
    os.chown(trees.source / "d", 5, 5)
    os.chmod(trees.source / "d", 0o700)
    trees.write(trees.target, "old/kept", "old/sub/kept")
    for name in ("old", "old/sub", "old/kept"):
        os.chown(trees.target / name, 9, 9)
        os.chmod(trees.target / name, 0o750)
    await trees.copy("d", "/old/")
    await trees.copy("d", "/new/way/", owner=(3, 4))
    info = trees.stat("old")
    assert (info.st_uid, info.st_mode & 0o7777, info.st_mtime_ns) == (9, 0o750, OLD)
    assert (trees.stat("old/kept").st_uid, trees.stat("old/sub/kept").st_uid) == (9, 0)
    assert (trees.stat("old/sub").st_uid, trees.stat("old/sub").st_mode & 0o777) == (0, 0o755)
    for name in ("new", "new/way", "new/way/f", "new/way/sub"):
        assert (trees.stat(name).st_uid, trees.stat(name).st_gid) == (3, 4)
    assert [trees.stat(name).st_mode & 0o777 for name in ("new", "new/way")] == [0o755, 0o755]


async def test_mode_and_timestamp(trees: Trees) -> None:
    trees.write(trees.source, "d/f", "d/sub/g", mode=0o644)
    os.symlink("f", trees.source / "d" / "s")
    await trees.copy("d", "/a/b/", mode=0o4750, timestamp=5 * SECOND + 1)
    for name in ("a/b/f", "a/b/sub", "a/b/sub/g"):
        assert trees.stat(name).st_mode & 0o7777 == 0o4750
    assert [trees.stat(name).st_mode & 0o7777 for name in ("a", "a/b")] == [0o750, 0o750]
    for name in ("a", "a/b", "a/b/f", "a/b/s", "a/b/sub", "a/b/sub/g"):
        assert trees.stat(name).st_mtime_ns == 5 * SECOND + 1


async def test_symbolic_modes(trees: Trees) -> None:
    trees.write(trees.source, "d/f", "d/sub/run", mode=0o640)
    (trees.source / "d/sub/run").chmod(0o750)
    await trees.copy("d", "/d", mode_str="go=rX,u+w")
    modes = {name: trees.stat(name).st_mode & 0o777 for name in ("d/f", "d/sub", "d/sub/run", "d")}
    assert modes == {"d/f": 0o644, "d/sub": 0o755, "d/sub/run": 0o755, "d": 0o755}
    with pytest.raises(UserError, match="invalid mode"):
        await trees.copy("d", "/d", mode_str="u+q")


async def test_files_replace_files_and_links(trees: Trees) -> None:
    trees.write(trees.source, "f", "g")
    trees.write(trees.target, "f", "precious")
    os.link(trees.target / "f", trees.target / "other")
    os.symlink("precious", trees.target / "g")
    await trees.copy("/", "/", mode=0o600)
    assert (trees.target / "precious").read_text() == "precious"
    assert stat.S_ISREG(trees.stat("g").st_mode)
    assert (trees.stat("other").st_nlink, trees.stat("other").st_mode & 0o777) == (1, 0o644)


async def test_what_the_target_directory_would_pass_on_is_not_passed_on(trees: Trees) -> None:
    trees.write(trees.source, "f", "d/g")
    (trees.target / "in").mkdir()
    os.chown(trees.target / "in", 0, 77)
    os.chmod(trees.target / "in", 0o2777)
    old = os.umask(0o077)
    try:
        await trees.copy("/", "/in/")
    finally:
        os.umask(old)
    assert [trees.stat(name).st_gid for name in ("in/f", "in/d", "in/d/g")] == [0, 0, 0]
    assert [trees.stat(name).st_mode & 0o7777 for name in ("in/f", "in/d")] == [0o644, 0o755]


async def test_large_and_sparse_files(trees: Trees) -> None:
    (trees.source / "large").write_bytes(os.urandom(3_000_000))
    for name in ("sparse", "hole"):
        (trees.source / name).write_bytes(b"")
        os.truncate(trees.source / name, 1 << 23)
    fd = os.open(trees.source / "sparse", os.O_WRONLY)
    os.pwrite(fd, b"data", 1 << 22)
    os.close(fd)
    files = await trees.copy("/", "/", digests=True)
    await trees.copy("/", "/again/")
    for name in ("large", "sparse", "hole"):
        contents = (trees.source / name).read_bytes()
        assert (trees.target / name).read_bytes() == contents
        assert (trees.target / "again" / name).read_bytes() == contents
        assert {file.path.decode(): file.digest for file in files}[name] == blake3(contents).digest()
    assert trees.stat("again/sparse").st_blocks * 512 <= 1 << 16


async def test_links_across_directories_and_into_what_is_full(trees: Trees) -> None:
    trees.write(trees.source, *(f"d{i}/f" for i in range(20)))
    for i in range(20):
        os.link(trees.source / "d0/f", trees.source / f"d{i}/link")
    os.utime(trees.source / "d0/f", ns=(OLD, OLD))
    trees.write(trees.source)
    await trees.copy("/", "/", owner=(1, 1))
    copied, source = describe(trees.target), describe(trees.source)
    assert {name: node.same_as for name, node in copied.items()} == {
        name: node.same_as for name, node in source.items()
    }
    assert {node.mtime for node in copied.values()} == {OLD}


async def test_names_without_a_meaning_in_utf8(trees: Trees) -> None:
    name = os.fsdecode(b"\xff\xfe")
    trees.write(trees.source, f"{name}/{name}")
    await trees.copy("/", "/", exclude=("nothing",))
    assert trees.names() == [f"{name}/{name}"]


async def test_many_files_in_many_threads(trees: Trees) -> None:
    trees.write(trees.source, *(f"d{i % 40}/e{i % 7}/f{i}" for i in range(700)))
    files = await trees.copy("/", "/", digests=True)
    assert describe(trees.target) == describe(trees.source)
    assert len(files) == 700
    assert all(file.digest == blake3(file.path).digest() for file in files)


# --- patterns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        ((), ("**/*.md",), ["a/x.go", "a/y.go", "b/deep/x.go"]),
        ((), ("a", "b/deep/z.md"), ["b/deep/x.go", "r.md"]),
        ((), ("a", "!a/y.go"), ["a/y.go", "b/deep/x.go", "b/deep/z.md", "r.md"]),
        ((), ("*", "!a/x.go"), ["a/x.go"]),
        (("*.md",), (), ["r.md"]),
        (("b/*/*.go",), (), ["b/deep/x.go"]),
        (("**/*.go",), ("a",), ["b/deep/x.go"]),
        (("a",), ("a/x.go",), ["a/y.go"]),
        (("nothing",), (), []),
    ],
)
async def test_patterns(trees: Trees, include: tuple[str, ...], exclude: tuple[str, ...], found: list[str]) -> None:
    trees.write(trees.source, "a/x.go", "a/y.go", "b/deep/x.go", "b/deep/z.md", "r.md")
    await trees.copy("/", "/", include=include, exclude=exclude)
    assert trees.names() == found
    directories = sorted(name for name in describe(trees.target) if (trees.target / name).is_dir())
    needed = {str(parent) for name in found for parent in Path(name).parents} - {"."}
    assert needed <= set(directories)
    if include:
        assert needed == set(directories)


async def test_directories_made_for_what_is_in_them(trees: Trees) -> None:
    trees.write(trees.source, "a/b/f", "a/c/g", "old/b/f")
    os.chown(trees.source / "a", 5, 5)
    os.chmod(trees.source / "a", 0o711)
    os.chmod(trees.source / "old", 0o700)
    trees.write(trees.source)
    trees.write(trees.target, "old/kept")
    os.chown(trees.target / "old", 9, 9)
    await trees.copy("/", "/", include=("*/b/f",))
    info = trees.stat("a")
    assert (info.st_uid, info.st_mode & 0o777, info.st_mtime_ns) == (5, 0o711, OLD)
    assert (trees.stat("old").st_uid, trees.stat("old").st_mode & 0o777) == (9, 0o700)  # its mode alone is taken over
    assert trees.names() == ["a/b/f", "old/b/f", "old/kept"]


async def test_a_pattern_does_not_speak_of_the_source_itself(trees: Trees) -> None:
    trees.write(trees.source, "a/f")
    await trees.copy("a/f", "/", exclude=("*", "a", "f"))
    assert trees.names() == ["f"]


async def test_required_paths(trees: Trees) -> None:
    trees.write(trees.source, "a/b/f", "a/bc")
    await trees.copy("/", "/", include=("a/b/f",), required_paths=("/a/b/f",))
    with pytest.raises(ContextError, match="/a/c not found"):
        await trees.copy("/", "/", include=("a/c",), required_paths=("/a/c",))
    with pytest.raises(ContextError, match="/a/b/g not found"):
        await trees.copy("/", "/", include=("a/b/g",), required_paths=("/a/b/g",))


# --- linking instead of copying ---------------------------------------------------------------------------


async def test_files_that_exist_already_are_linked(trees: Trees, tmp_path: Path) -> None:
    trees.write(trees.source, "d/same", "d/other", "d/missing", "d/escape", "top")
    before = tmp_path / "before"
    shutil.copytree(trees.source, before / "was")
    (before / "was" / "d" / "missing").unlink()
    os.chmod(before / "was" / "d" / "other", 0o600)
    os.symlink("/", before / "was" / "d" / "root")
    fd = os.open(before, os.O_RDONLY)

    def find(path: bytes) -> bytes | None:
        if path == b"top":
            return None
        return b"was/d/root/etc/passwd" if path.endswith(b"escape") else b"was/" + path

    try:
        await trees.copy("/", "/", reuse=Reuse(directory=fd, find=find))
    finally:
        os.close(fd)
    assert describe(trees.target) == describe(trees.source)
    links = {name: trees.stat(name).st_nlink for name in trees.names()}
    assert links == {"d/escape": 1, "d/missing": 1, "d/other": 1, "d/same": 2, "top": 1}
    assert (before / "was" / "d" / "other").stat().st_mode & 0o777 == 0o600


# --- harm -------------------------------------------------------------------------------------------------


async def test_a_source_that_shrinks_or_grows_is_named(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write(trees.source, "f")
    (trees.source / "g").write_bytes(b"x" * 200_000)
    original = os.fstat

    def lying(fd: int) -> os.stat_result:
        info = original(fd)
        if stat.S_ISREG(info.st_mode) and info.st_size:
            fields = list(info)
            fields[6] = info.st_size + 1
            return os.stat_result(fields, {"st_mtime_ns": 1, "st_blocks": 1000, "st_rdev": 0, "st_ctime_ns": 1})
        return info

    monkeypatch.setattr(os, "fstat", lying)
    for name in ("f", "g"):
        with pytest.raises(ContextError, match=f"{name} changed while it was read"):
            await trees.copy(name, "/")


async def test_nothing_outside_is_read_or_written(trees: Trees, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    trees.write(trees.source, "f")
    os.symlink("../secret", trees.source / "s")
    os.symlink("..", trees.source / "up")
    os.symlink("..", trees.target / "up")
    os.symlink("../written", trees.target / "w")
    for src in ("s", "up/secret", "../secret", "up/../../secret"):
        with pytest.raises(BuildError, match="no such file"):
            await trees.copy(src, "/")
    await trees.copy("f", "/up/x")
    await trees.copy("f", "/w")
    await trees.copy("f", "/../y")
    assert sorted(os.listdir(tmp_path)) == ["secret", "source", "target"]
    assert trees.names() == ["up", "w", "written", "x", "y"]


# --- a source that is being scanned -----------------------------------------------------------------------


class Scan:
    """Sees `d/f` and `g` only; `d/f` has changed since."""

    def names(self, directory: str) -> frozenset[str]:
        return frozenset({"": {"d", "g"}, "d": {"f"}}.get(directory, set()))

    def is_current(self, path: str, info: os.stat_result) -> bool:
        return path != "d/f"


async def test_only_what_is_visible_is_copied(trees: Trees) -> None:
    trees.write(trees.source, "d/f", "d/hidden", "g", "hidden/x", "gone")
    for src in ("g", "*g*"):
        await trees.copy(src, "/out/", visible=Scan())
    assert trees.names() == ["out/g"]
    with pytest.raises(ContextError, match="d/f changed"):
        await trees.copy("/", "/out/", visible=Scan())
    assert set(trees.names()) <= {"out/d/f", "out/g"}
    for src in ("hidden/x", "gone"):
        with pytest.raises(ContextError, match="not found"):
            await trees.copy(src, "/out/", visible=Scan())
