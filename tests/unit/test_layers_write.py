"""Writing layers: which entries there are and in what order, the same bytes each time, readable by other tools."""

from __future__ import annotations

import io
import os
import resource
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildengine.errors import StoreError, UserError
from cache.overlay import OPAQUE_XATTR
from tests.unit.layers_trees import describe, read_entries, written
from worker.layers.apply import apply
from worker.layers.tar import Kind, TarHeader
from worker.layers.write import layer_blocks

SECOND = 1_000_000_000


def names(data: bytes) -> list[str]:
    return [os.fsdecode(event.name) for event in read_entries([data]) if isinstance(event, TarHeader)]


def headers(data: bytes) -> dict[str, TarHeader]:
    return {os.fsdecode(event.name): event for event in read_entries([data]) if isinstance(event, TarHeader)}


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """d/{a,b,sub/c} and a file f, all of one known time."""
    path = tmp_path / "lower"
    (path / "d" / "sub").mkdir(parents=True)
    for name in ("d/a", "d/b", "d/sub/c", "f"):
        (path / name).write_text(name)
    for directory, _, files in os.walk(path, topdown=False):
        for name in files:
            os.utime(Path(directory, name), ns=(SECOND, SECOND + 5))
        os.utime(directory, ns=(SECOND, SECOND))
    return path


def delete(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def make_opaque(path: Path) -> None:
    os.setxattr(path, OPAQUE_XATTR, b"y")


def copied_up(lower: Path, upper: Path, name: str) -> Path:
    subprocess.run(["cp", "-a", "--parents", name, upper], cwd=lower, check=True)
    return upper / name


# --- what is in the archive -------------------------------------------------------------------------------


def test_parents_first_and_names_sorted_as_bytes(upper: Path) -> None:
    for name in ("b/x", "b/a/z", "a", "é", "b.c", "B"):
        (upper / name).parent.mkdir(parents=True, exist_ok=True)
        (upper / name).write_text(name)
    (upper / os.fsdecode(b"\xff")).write_text("no UTF-8")
    expected = ["B", "a", "b/", "b/a/", "b/a/z", "b/x", "b.c", "é", os.fsdecode(b"\xff")]
    assert names(written(upper)) == expected


def test_every_kind_of_file(upper: Path) -> None:
    (upper / "f").write_bytes(b"data")
    os.chown(upper / "f", 3_000_000, 7)
    os.chmod(upper / "f", 0o4751)
    os.setxattr(upper / "f", "user.a", b"\0\xff")
    os.setxattr(upper / "f", "trusted.overlay.origin", b"x")
    os.setxattr(upper / "f", "trusted.other", b"x")
    os.link(upper / "f", upper / "g")
    os.symlink("f" * 200, upper / "s")
    os.mkfifo(upper / "p")
    os.mknod(upper / "c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(upper / "socket", stat.S_IFSOCK | 0o600)
    entries = headers(written(upper))
    assert sorted(entries) == ["c", "f", "g", "p", "s"]
    assert (entries["f"].mode, entries["f"].uid, entries["f"].gid, entries["f"].size) == (0o4751, 3_000_000, 7, 4)
    assert entries["f"].xattrs == {"user.a": b"\0\xff"}
    assert (entries["g"].kind, entries["g"].linkname) == (Kind.LINK, b"f")
    assert entries["s"].linkname == b"f" * 200
    assert (entries["c"].major, entries["c"].minor, entries["p"].kind) == (1, 3, Kind.FIFO)


def test_whiteouts_only_of_what_there_was(upper: Path, lower: Path) -> None:
    (upper / "d").mkdir()
    for name in ("d/a", "d/sub", "d/never", "never"):
        delete(upper / name)
    entries = headers(written(upper, lower))
    assert list(entries) == ["d/", "d/.wh.a", "d/.wh.sub"]
    marker = entries["d/.wh.a"]
    assert (marker.kind, marker.size, marker.mode, marker.mtime, marker.uid) == (Kind.FILE, 0, 0, 0, 0)
    assert names(written(upper)) == ["d/"]


def test_an_opaque_directory_becomes_whiteouts(upper: Path, lower: Path) -> None:
    (upper / "d" / "sub").mkdir(parents=True)
    make_opaque(upper / "d")
    (upper / "d" / "a").write_text("other")
    (upper / "d" / "sub" / "new").write_text("new")
    delete(upper / "d" / "never")
    assert names(written(upper, lower)) == ["d/", "d/a", "d/.wh.b", "d/sub/", "d/sub/.wh.c", "d/sub/new"]
    assert names(written(upper)) == ["d/", "d/a", "d/sub/", "d/sub/new"]


def test_an_opaque_value_of_another_kernel_hides_nothing(upper: Path, lower: Path) -> None:
    (upper / "d").mkdir()
    os.setxattr(upper / "d", OPAQUE_XATTR, b"x")
    delete(upper / "d" / "b")
    assert names(written(upper, lower)) == ["d/", "d/.wh.b"]


def test_what_was_copied_up_unchanged_is_left_out(upper: Path, lower: Path) -> None:
    copied_up(lower, upper, "f")
    copied_up(lower, upper, "d/sub/c")
    assert names(written(upper, lower)) == []
    (upper / "d" / "sub" / "new").write_text("")
    assert names(written(upper, lower)) == ["d/", "d/sub/", "d/sub/new"]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.chmod(path, 0o600),
        lambda path: os.chown(path, 1, 0),
        lambda path: os.setxattr(path, "user.a", b"1"),
        lambda path: os.utime(path, ns=(SECOND, SECOND + 6)),
        lambda path: (path.write_bytes(b"D/A"), os.utime(path, ns=(SECOND, SECOND + 5))),
        lambda path: (path.write_bytes(b"d/aa"), os.utime(path, ns=(SECOND, SECOND + 5))),
    ],
    ids=["mode", "owner", "xattr", "time", "contents with the old time", "size"],
)
def test_every_change_of_a_file_is_seen(upper: Path, lower: Path, change: Callable[[Path], object]) -> None:
    change(copied_up(lower, upper, "d/a"))
    assert names(written(upper, lower)) == ["d/", "d/a"]


def test_an_unchanged_file_with_a_new_link_is_in_as_a_link(upper: Path, lower: Path) -> None:
    copied_up(lower, upper, "d/sub/c")
    (upper / "e").mkdir()
    os.link(upper / "d/sub/c", upper / "e" / "new")
    entries = headers(written(upper, lower))
    assert list(entries) == ["e/", "e/new", "d/", "d/sub/", "d/sub/c"]
    assert (entries["e/new"].size, entries["d/sub/c"].kind, entries["d/sub/c"].linkname) == (7, Kind.LINK, b"e/new")
    os.link(upper / "d/sub/c", upper / "a")
    assert [name for name, entry in headers(written(upper, lower)).items() if entry.kind is Kind.LINK] == [
        "d/sub/c",
        "e/new",
    ]


@pytest.mark.parametrize("new", ["a", "z"])
def test_an_unchanged_symlink_with_a_new_link_is_in_as_a_link(upper: Path, lower: Path, new: str) -> None:
    for tree in (lower, upper):
        os.symlink("there", tree / "s")
        os.utime(tree / "s", ns=(SECOND, SECOND), follow_symlinks=False)
    os.link(upper / "s", upper / new, follow_symlinks=False)
    entries = headers(written(upper, lower))
    assert list(entries) == [new, "s"]
    assert (entries[new].kind, entries["s"].kind) == (Kind.SYMLINK, Kind.LINK)
    assert entries["s"].linkname == new.encode()


def test_a_changed_directory_is_in_its_own_right(upper: Path, lower: Path) -> None:
    (upper / "d").mkdir(mode=0o700)
    assert names(written(upper, lower)) == ["d/"]


def test_a_directory_with_another_attribute_is_changed(upper: Path, lower: Path) -> None:
    for tree in (upper, lower):
        (tree / "x").mkdir()
        os.setxattr(tree / "x", "user.one", b"1")
    assert names(written(upper, lower)) == []
    os.setxattr(upper / "x", "user.one", b"2")
    assert names(written(upper, lower)) == ["x/"]


def test_a_device_of_another_number_is_changed(upper: Path, lower: Path) -> None:
    for tree, minor in ((upper, 3), (lower, 3), (upper, 5)):
        (tree / "null").unlink(missing_ok=True)
        os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.utime(tree / "null", ns=(SECOND, SECOND))
        if minor == 3 and tree is lower:
            assert names(written(upper, lower)) == []
    assert names(written(upper, lower)) == ["null"]


def test_files_and_directories_that_replace_each_other(upper: Path, lower: Path) -> None:
    (upper / "f").mkdir()
    (upper / "f" / "x").write_text("")
    (upper / "d").write_text("")
    assert names(written(upper, lower)) == ["d", "f/", "f/x"]


def test_symlinks_that_did_not_change_are_left_out(upper: Path, lower: Path) -> None:
    for tree, other in ((lower, "same"), (upper, "same")):
        os.symlink(other, tree / "s")
        os.utime(tree / "s", ns=(SECOND, SECOND), follow_symlinks=False)
    assert names(written(upper, lower)) == []
    (upper / "s").unlink()
    os.symlink("smae", upper / "s")
    os.utime(upper / "s", ns=(SECOND, SECOND), follow_symlinks=False)
    assert names(written(upper, lower)) == ["s"]


def test_a_lone_lower_layer_is_read_without_its_whiteouts(upper: Path, lower: Path) -> None:
    delete(lower / "gone")
    delete(upper / "gone")
    (upper / "d").mkdir()
    make_opaque(upper / "d")
    delete(lower / "d" / "gone")
    assert names(written(upper, lower)) == ["d/", "d/.wh.a", "d/.wh.b", "d/.wh.sub"]


@pytest.mark.parametrize("name", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_a_layer_that_is_not_whole_is_refused(upper: Path, name: str) -> None:
    (upper / "d").mkdir()
    (upper / "f").write_text("")
    os.setxattr(upper / ("d" if "redirect" in name else "f"), name, b"/x")
    with pytest.raises(StoreError, match=name):
        written(upper)


def test_times_are_clamped_to_the_epoch(upper: Path) -> None:
    (upper / "early").write_text("")
    (upper / "late").write_text("")
    os.utime(upper / "early", ns=(0, 5 * SECOND + 7))
    os.utime(upper / "late", ns=(0, 50 * SECOND))
    assert [header.mtime for header in headers(written(upper, epoch=10)).values()] == [5 * SECOND, 10 * SECOND]


# --- bytes ------------------------------------------------------------------------------------------------


def test_the_same_tree_gives_the_same_bytes(upper: Path, tmp_path: Path) -> None:
    for i in range(50):
        (upper / f"d{i % 7}").mkdir(exist_ok=True)
        (upper / f"d{i % 7}" / f"{i}").write_bytes(os.urandom(i * 100))
    data = written(upper)
    subprocess.run(["cp", "-a", upper, tmp_path / "again"], check=True)
    assert written(tmp_path / "again") == data == written(upper)
    with layer_blocks(upper, None, block_size=1000) as blocks:
        pieces = [bytes(block) for block in blocks]
    assert b"".join(pieces) == data
    assert {len(piece) for piece in pieces[:-1]} == {1000}


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2 << 20, (2 << 20) - 512, (2 << 20) - 1024, (4 << 20) + 1])
def test_files_around_the_size_of_a_block(upper: Path, size: int) -> None:
    (upper / "f").write_bytes(b"x" * size)
    (upper / "g").write_bytes(b"y")
    with tarfile.open(fileobj=io.BytesIO(written(upper))) as archive:
        assert archive.getnames() == ["f", "g"]
        stream = archive.extractfile("f")
        assert stream is not None
        assert stream.read() == b"x" * size


def test_gnu_tar_extracts_the_same_tree(upper: Path, tmp_path: Path) -> None:
    (upper / ("d" * 200)).mkdir()
    (upper / ("d" * 200) / ("n" * 250)).write_bytes(b"long")
    (upper / "é").write_text("x")
    os.chown(upper / "é", 5_000_000, 5_000_000)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(upper / "é", "security.capability", capability)
    os.setxattr(upper / "é", "user.x", b"1")
    os.link(upper / "é", upper / "link")
    os.symlink("é" * 80, upper / "s")
    target = tmp_path / "target"
    target.mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=*", "-xpf", "-"]
    subprocess.run(command, cwd=target, input=written(upper), check=True)
    assert describe(target) == describe(upper, whole_seconds=True)


def test_paths_that_linux_cannot_open_are_refused(upper: Path) -> None:
    fd = os.open(upper, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=fd)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    with pytest.raises(UserError, match="longer than Linux allows"):
        written(upper)


def test_deep_trees_need_few_descriptors(upper: Path) -> None:
    deep = upper.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    (upper / "d" / "z").write_text("x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, hard))
    try:
        found = names(written(upper, upper.parent))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (len(found), found[-1]) == (302, "d/z")


def test_a_reader_that_stops_leaves_nothing_open(upper: Path, lower: Path) -> None:
    copied_up(lower, upper, "d/sub/c")
    (upper / "d" / "sub" / "big").write_bytes(b"x" * 5000)
    before = len(os.listdir("/proc/self/fd"))
    with layer_blocks(upper, None, block_size=512) as blocks:
        assert bytes(next(iter(blocks)))[:2] == b"d/"
    assert len(os.listdir("/proc/self/fd")) == before


# --- there and back ---------------------------------------------------------------------------------------

file_names = st.text("ab.é\udcff", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
paths = st.lists(file_names, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(
    paths,
    st.tuples(
        st.sampled_from(["file", "directory", "symlink", "fifo", "device"]),
        st.binary(max_size=2000),
        st.integers(0, 0o7777),
        st.integers(0, 1 << 22),
        st.integers(-1000, 1 << 33),
    ),
    max_size=8,
)


def grow(root: Path, tree: dict[str, tuple[str, bytes, int, int, int]]) -> None:
    for path, (kind, data, mode, owner, time) in tree.items():
        target = root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            continue
        if os.path.lexists(target):
            continue
        if kind == "file":
            target.write_bytes(data)
        elif kind == "directory":
            target.mkdir()
        elif kind == "symlink":
            os.symlink(data.replace(b"\0", b"x")[:60] or b"x", os.fsencode(target))
        elif kind == "fifo":
            os.mkfifo(target)
        else:
            os.mknod(target, stat.S_IFBLK, os.makedev(7, len(data)))
        os.chown(target, owner, owner, follow_symlinks=False)
        if kind != "symlink":
            os.chmod(target, mode)
        os.utime(target, ns=(0, time * SECOND), follow_symlinks=False)


@given(tree=trees)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_can_be_applied(tree: dict[str, tuple[str, bytes, int, int, int]], tmp_path: Path) -> None:
    work = tmp_path / os.urandom(8).hex()
    (work / "one").mkdir(parents=True)
    (work / "two").mkdir()
    grow(work / "one", tree)
    data = written(work / "one")
    apply(io.BytesIO(data), work / "two")
    assert describe(work / "two") == describe(work / "one", whole_seconds=True)
    assert written(work / "two") == data
