"""Applying layers: what each kind of entry becomes, whiteouts, lower layers, and archives that mean harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from buildengine.errors import SourceError
from cache.overlay import OPAQUE_XATTR, TreeMount
from tests.unit.layers_trees import (
    SECOND,
    WHEN,
    Entry,
    archive,
    describe,
    directory,
    file,
    link,
    opaque,
    symlink,
    whiteout,
)
from worker.layers.apply import apply
from worker.layers.removal import remove
from worker.layers.tar import Kind, TarHeader

CAPABILITY = b"\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.mkdir()
    return path


@pytest.fixture
def below(tmp_path: Path) -> TreeMount:
    """Two lower layers: usr/lib with a file, lib -> usr/lib, etc hidden and made anew by the upper of them."""
    base, middle = tmp_path / "base", tmp_path / "middle"
    base.mkdir()
    middle.mkdir()
    entries = [
        directory(b"usr", mode=0o751, uid=7),
        directory(b"usr/lib", mode=0o2750, gid=9, xattrs={"user.x": b"1"}),
        file(b"usr/lib/libc", b"libc", mode=0o4755, uid=5, xattrs={"security.capability": CAPABILITY}),
        symlink(b"lib", b"usr/lib"),
        directory(b"etc"),
        file(b"etc/old", b"old"),
        file(b"plain", b"plain"),
    ]
    apply(io.BytesIO(archive(*entries)), base)
    apply(io.BytesIO(archive(directory(b"etc"), opaque(b"etc"), file(b"etc/new", b"new"), whiteout(b"plain"))), middle)
    return TreeMount(lowers=(str(middle), str(base)))


def put(layer: Path, *entries: Entry, lowers: TreeMount | None = None) -> dict[str, object]:
    apply(io.BytesIO(archive(*entries)), layer, lowers=lowers)
    return dict(describe(layer))


def is_whiteout(path: Path) -> bool:
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE_XATTR in os.listxattr(path) and os.getxattr(path, OPAQUE_XATTR) == b"y"


# --- entries ----------------------------------------------------------------------------------------------


def test_every_kind_of_entry(layer: Path) -> None:
    put(
        layer,
        directory(b"./d", mode=0o2711, uid=1, gid=2, xattrs={"user.d": b"d"}),
        file(b"./d/f", b"data", mode=0o4711, uid=3, gid=4, xattrs={"user.a": b"1", "security.capability": CAPABILITY}),
        symlink(b"d/s", b"../../../etc/passwd"),
        link(b"d/h", b"d/f"),
        (TarHeader(name=b"d/fifo", kind=Kind.FIFO, mode=0o600, mtime=WHEN), b""),
        (TarHeader(name=b"d/c", kind=Kind.CHAR, mode=0o666, major=1, minor=3, uid=9, mtime=WHEN), b""),
        (TarHeader(name=b"d/b", kind=Kind.BLOCK, mode=0o640, major=259, minor=70000, mtime=WHEN), b""),
        file(b"d/empty", mode=0),
    )
    nodes = describe(layer)
    assert nodes["d"].mode == stat.S_IFDIR | 0o2711
    assert (nodes["d"].owner, nodes["d"].mtime, nodes["d"].xattrs) == ((1, 2), WHEN, (("user.d", b"d"),))
    assert (nodes["d/f"].mode, nodes["d/f"].owner) == (stat.S_IFREG | 0o4711, (3, 4))
    assert nodes["d/f"].xattrs == (("security.capability", CAPABILITY), ("user.a", b"1"))
    assert (nodes["d/f"].contents, nodes["d/h"].same_as or nodes["d/f"].same_as) == (b"data", "d/f")
    assert nodes["d/s"].contents == b"../../../etc/passwd"
    assert nodes["d/fifo"].mode == stat.S_IFIFO | 0o600
    assert (nodes["d/c"].device, nodes["d/c"].owner, nodes["d/c"].mode) == (
        os.makedev(1, 3),
        (9, 0),
        stat.S_IFCHR | 0o666,
    )
    assert nodes["d/b"].device == os.makedev(259, 70000)
    assert nodes["d/empty"].mode == stat.S_IFREG
    assert {node.mtime for node in nodes.values()} == {WHEN}


def test_modes_do_not_depend_on_the_umask(layer: Path) -> None:
    old = os.umask(0o077)
    try:
        put(layer, directory(b"d", mode=0o1777), file(b"f", mode=0o666), file(b"g", mode=0o600))
    finally:
        os.umask(old)
    assert [stat.S_IMODE((layer / name).stat().st_mode) for name in "dfg"] == [0o1777, 0o666, 0o600]


def test_a_directory_may_come_after_its_files_or_not_at_all(layer: Path) -> None:
    put(layer, file(b"a/b/f", b"1"), directory(b"a", mode=0o700), file(b"a/g"))
    nodes = describe(layer)
    assert (nodes["a"].mode, nodes["a"].mtime) == (stat.S_IFDIR | 0o700, WHEN)
    assert (nodes["a/b"].mode, nodes["a/b"].owner, nodes["a/b"].mtime) == (stat.S_IFDIR | 0o755, (0, 0), 0)


def test_a_default_acl_does_not_reach_the_files(layer: Path) -> None:
    acl = (2).to_bytes(4, "little")
    for tag, permissions, who in ((1, 7, -1), (2, 7, 1), (4, 5, -1), (0x10, 7, -1), (0x20, 5, -1)):
        acl += struct.pack("<HHi", tag, permissions, who)
    put(layer, directory(b"d", xattrs={"system.posix_acl_default": acl}), file(b"d/f", mode=0o640))
    assert os.listxattr(layer / "d") == ["system.posix_acl_default"]
    assert os.listxattr(layer / "d" / "f") == []
    assert stat.S_IMODE((layer / "d" / "f").stat().st_mode) == 0o640


def test_xattrs_that_speak_to_overlayfs_are_left_out(layer: Path) -> None:
    evil = {"trusted.overlay.redirect": b"/etc", "trusted.x": b"1", "user.overlay.opaque": b"y", "user.ok": b"1"}
    put(layer, directory(b"d", xattrs=evil), file(b"d/f", xattrs=evil | {"security.selinux": b"label"}))
    assert os.listxattr(layer / "d") == os.listxattr(layer / "d" / "f") == ["user.ok"]


@pytest.mark.parametrize("first", ["file", "directory", "symlink"])
@pytest.mark.parametrize("second", ["file", "directory", "symlink", "link", "fifo"])
def test_the_last_entry_of_a_name_counts(layer: Path, first: str, second: str) -> None:
    def make(kind: str, text: bytes) -> Entry:
        if kind == "directory":
            return directory(b"x", mode=0o711 if text == b"2" else 0o700)
        if kind == "fifo":
            return TarHeader(name=b"x", kind=Kind.FIFO, mtime=WHEN), b""
        return {"file": file(b"x", text), "symlink": symlink(b"x", text), "link": link(b"x", b"other")}[kind]

    entries = [file(b"other", b"o"), make(first, b"1")]
    if first == "directory":
        entries += [directory(b"x/deep"), file(b"x/deep/f")]
    put(layer, *entries, make(second, b"2"))
    nodes = describe(layer)
    if second == "directory":
        assert nodes["x"].mode == stat.S_IFDIR | 0o711
        assert ("x/deep/f" in nodes) == (first == "directory")
        assert is_opaque(layer / "x") == (first != "directory")
    else:
        assert sorted(nodes) == ["other", "x"]
        assert nodes["x"].contents == {"file": b"2", "symlink": b"2", "link": b"o", "fifo": b""}[second]


def test_a_replaced_symlink_leads_nowhere_any_more(layer: Path) -> None:
    put(
        layer,
        directory(b"one"),
        directory(b"two"),
        symlink(b"l", b"one"),
        file(b"l/a"),
        symlink(b"l", b"two"),
        file(b"l/b"),
        directory(b"l"),
        file(b"l/c"),
    )
    assert sorted(describe(layer)) == ["l", "l/c", "one", "one/a", "two", "two/b"]


def test_a_link_to_a_symlink_is_that_symlink(layer: Path) -> None:
    put(layer, symlink(b"s", b"nowhere"), link(b"h", b"s"), link(b"h", b"h"))
    assert (layer / "h").readlink() == Path("nowhere")


def test_the_entry_of_the_root_itself_is_left_out(layer: Path) -> None:
    before = layer.stat()
    put(layer, directory(b".", mode=0o700), directory(b"", mode=0o700), file(b"./", b""), file(b"f"))
    assert (sorted(describe(layer)), layer.stat().st_mode) == (["f"], before.st_mode)


def test_sparse_files_stay_sparse(layer: Path, tmp_path: Path) -> None:
    with open(tmp_path / "s", "wb") as sparse:
        sparse.write(b"head")
        sparse.seek(1 << 22)
        sparse.write(b"tail")
        sparse.truncate(1 << 23)
    done = subprocess.run(["tar", "-S", "-cf", "-", "s"], cwd=tmp_path, capture_output=True, check=True)
    apply(io.BytesIO(done.stdout), layer)
    assert (layer / "s").read_bytes() == (tmp_path / "s").read_bytes()
    assert (layer / "s").stat().st_blocks * 512 < 1 << 16


# --- whiteouts --------------------------------------------------------------------------------------------


def test_whiteouts(layer: Path) -> None:
    put(layer, whiteout(b"gone"), directory(b"d"), opaque(b"d"), file(b"d/f"), whiteout(b"e/gone"), opaque(b"new/dir"))
    assert is_whiteout(layer / "gone")
    assert is_whiteout(layer / "e" / "gone")
    assert is_opaque(layer / "d")
    assert is_opaque(layer / "new" / "dir")
    assert not is_opaque(layer / "e")
    assert sorted(describe(layer)) == ["d", "d/f", "e", "e/gone", "gone", "new", "new/dir"]


@pytest.mark.parametrize("last", [True, False])
def test_a_whiteout_does_not_touch_its_own_layer(layer: Path, last: bool) -> None:
    markers = [whiteout(b"f"), whiteout(b"d"), opaque(b"o")]
    files = [file(b"f", b"new"), directory(b"d"), file(b"d/g"), directory(b"o"), file(b"o/p")]
    put(layer, *(files + markers if last else markers + files))
    assert sorted(describe(layer)) == ["d", "d/g", "f", "o", "o/p"]
    assert (layer / "f").read_bytes() == b"new"
    assert is_opaque(layer / "d")
    assert is_opaque(layer / "o")


def test_files_below_a_deleted_directory(layer: Path) -> None:
    put(layer, whiteout(b"d"), file(b"d/f"))
    assert is_opaque(layer / "d")


def test_an_opaque_root_deletes_each_name(layer: Path, below: TreeMount) -> None:
    put(layer, opaque(b""), file(b"usr/f"), file(b"lib"), lowers=below)
    assert is_whiteout(layer / "etc")
    assert is_opaque(layer / "usr")
    assert (layer / "lib").is_file()
    assert not (layer / "plain").exists()


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"d/.wh...", b"d/.wh.."])
def test_whiteouts_of_no_name_are_refused(layer: Path, name: bytes) -> None:
    with pytest.raises(SourceError, match="whiteout"):
        put(layer, directory(b"d"), file(name))
    assert sorted(describe(layer)) == ["d"]


def test_bookkeeping_of_aufs_is_left_out(layer: Path) -> None:
    put(layer, directory(b".wh..wh.plnk"), file(b".wh..wh.plnk/1.2", b"data" * 400), file(b".wh..wh.aufs"), file(b"f"))
    assert sorted(describe(layer)) == ["f"]


def test_names_that_only_look_like_whiteouts(layer: Path) -> None:
    put(layer, file(b"a.wh.b", b"1"), directory(b"x.wh.y"), file(b"x.wh.y/f"))
    assert sorted(describe(layer)) == ["a.wh.b", "x.wh.y", "x.wh.y/f"]
    with pytest.raises(SourceError, match="below a whiteout"):
        put(layer, file(b".wh.x/f"))


def test_the_longest_name_can_be_deleted(layer: Path) -> None:
    put(layer, whiteout(b"n" * 255))
    assert is_whiteout(layer / ("n" * 255))


# --- lower layers -----------------------------------------------------------------------------------------


def test_implied_parents_are_those_of_the_lower_layers(layer: Path, below: TreeMount) -> None:
    put(layer, file(b"usr/lib/new", b"1"), lowers=below)
    nodes = describe(layer)
    assert (nodes["usr"].mode, nodes["usr"].owner, nodes["usr"].mtime) == (stat.S_IFDIR | 0o751, (7, 0), WHEN)
    assert (nodes["usr/lib"].mode, nodes["usr/lib"].owner) == (stat.S_IFDIR | 0o2750, (0, 9))
    assert nodes["usr/lib"].xattrs == (("user.x", b"1"),)
    assert nodes["usr/lib/new"].owner == (0, 0)  # nothing is inherited from the set-group-ID directory


def test_a_symlink_of_a_lower_layer_is_followed(layer: Path, below: TreeMount) -> None:
    put(layer, file(b"lib/new", b"1"), whiteout(b"lib/libc"), lowers=below)
    assert sorted(describe(layer)) == ["usr", "usr/lib", "usr/lib/libc", "usr/lib/new"]
    assert is_whiteout(layer / "usr" / "lib" / "libc")


def test_a_symlink_can_be_replaced_by_its_own_entry(layer: Path, below: TreeMount) -> None:
    put(layer, directory(b"lib"), file(b"lib/new", b"1"), lowers=below)
    assert sorted(describe(layer)) == ["lib", "lib/new"]


def test_a_link_may_lead_to_a_lower_file(layer: Path, below: TreeMount) -> None:
    put(layer, link(b"copy", b"lib/libc"), lowers=below)
    nodes = describe(layer)
    assert (nodes["copy"].contents, nodes["usr/lib/libc"].same_as) == (b"libc", "copy")
    assert (nodes["copy"].mode, nodes["copy"].owner) == (stat.S_IFREG | 0o4755, (5, 0))
    assert nodes["copy"].xattrs == (("security.capability", CAPABILITY),)
    base = Path(below.lowers[1])
    assert (base / "usr" / "lib" / "libc").stat().st_nlink == 1  # never the lower layer's own inode


def test_a_link_to_a_lower_symlink(layer: Path, below: TreeMount) -> None:
    put(layer, link(b"l2", b"lib"), lowers=below)
    assert (layer / "l2").readlink() == Path("usr/lib")


@pytest.mark.parametrize("target", [b"etc/old", b"plain", b"usr", b"nothing", b"", b"etc/new/x"])
def test_a_link_to_what_is_not_shown(layer: Path, below: TreeMount, target: bytes) -> None:
    with pytest.raises(SourceError):
        put(layer, link(b"copy", target), lowers=below)


def test_what_this_layer_hides_is_not_looked_up(layer: Path, below: TreeMount) -> None:
    with pytest.raises(SourceError):
        put(layer, opaque(b"usr"), link(b"copy", b"usr/lib/libc"), lowers=below)
    put(layer, whiteout(b"lib"), file(b"lib/x"), lowers=below)
    assert (layer / "lib" / "x").is_file()


def test_a_file_of_a_lower_layer_is_no_parent(layer: Path, below: TreeMount) -> None:
    with pytest.raises(SourceError, match="not a directory"):
        put(layer, file(b"etc/new/f"), lowers=below)


# --- harm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"/../x", b"..", b"./a/./../../x"])
def test_names_that_lead_out_are_refused(layer: Path, name: bytes) -> None:
    for entry in (file(name, b"x"), directory(name), symlink(name, b"y"), file(name + b"/.wh.x")):
        with pytest.raises(SourceError, match="outside its root"):
            put(layer, entry)
    with pytest.raises(SourceError, match="outside its root"):
        put(layer, link(b"h", name))
    assert sorted(os.listdir(layer.parent)) == ["layer"]


def test_absolute_names_and_inner_dots_stay_inside(layer: Path) -> None:
    put(layer, file(b"/etc/passwd", b"1"), directory(b"a"), file(b"a/../b", b"2"), file(b"//c", b"3"))
    assert sorted(describe(layer)) == ["a", "b", "c", "etc", "etc/passwd"]


@pytest.mark.parametrize("target", [b"/", b"..", b"../../../..", b"/proc/self/root", b"./../../"])
def test_symlinks_lead_nowhere_outside(layer: Path, target: bytes) -> None:
    outside = layer.parent / "evil"
    put(layer, symlink(b"l", target), file(b"l/evil", b"x"))
    assert not outside.exists()
    assert not Path("/evil").exists()
    assert any(path.name == "evil" for path in layer.rglob("evil"))


def test_symlinks_in_circles(layer: Path) -> None:
    with pytest.raises(SourceError, match="symbolic links"):
        put(layer, symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x"))


def test_a_swapped_directory_does_not_help(layer: Path) -> None:
    outside = layer.parent / "outside"
    outside.mkdir()
    put(layer, directory(b"d"), file(b"d/a"), symlink(b"d", b"/../../outside"), file(b"d/evil"))
    assert os.listdir(outside) == []


def test_a_file_is_no_parent(layer: Path) -> None:
    with pytest.raises(SourceError, match="not a directory"):
        put(layer, file(b"f"), file(b"f/g"))


def test_devices_that_cannot_exist(layer: Path) -> None:
    with pytest.raises(SourceError, match="device"):
        put(layer, (TarHeader(name=b"c", kind=Kind.CHAR, major=0o7777777, minor=0), b""))


@pytest.mark.parametrize("name", [b"n" * 256, b"d/" + b"n" * 300, b"/".join([b"d" * 200] * 21)])
def test_names_too_long_for_linux(layer: Path, name: bytes) -> None:
    with pytest.raises(SourceError, match="too long"):
        put(layer, file(name))


def test_the_longest_and_deepest_paths(layer: Path) -> None:
    deep, long = b"/".join([b"d"] * 1200), b"/".join([b"n" * 255] * 15)
    apply(io.BytesIO(archive(file(deep + b"/f", b"1"), file(long, b"2"))), layer)
    assert (layer / os.fsdecode(long)).read_bytes() == b"2"
    root = os.open(layer, os.O_RDONLY)
    gone: list[Path] = []
    remove(root, b"d", lambda path: gone.append(Path(os.fsdecode(b"/".join(path)))))
    os.close(root)
    assert (len(gone), gone[-1]) == (1200, Path("d"))
    assert os.listdir(layer) == ["n" * 255]


def test_an_archive_that_ends_early_is_an_error(layer: Path) -> None:
    data = archive(file(b"f", b"x" * 2000))
    with pytest.raises(SourceError, match="complete"):
        apply(io.BytesIO(data[:1500]), layer)


def test_no_descriptor_is_left_open(layer: Path, below: TreeMount) -> None:
    before = os.listdir("/proc/self/fd")
    put(layer, *(file(b"d%d/f%d" % (i, i)) for i in range(200)), file(b"lib/x"), lowers=below)
    with pytest.raises(SourceError):
        put(layer, file(b"a/b", b"x"), link(b"l", b"nothing"), lowers=below)
    with pytest.raises(SourceError):
        apply(io.BytesIO(archive(file(b"f9", b"x" * 2000))[:1500]), layer)
    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- streams ----------------------------------------------------------------------------------------------


def test_what_is_hashed_is_the_whole_plain_archive(layer: Path, tmp_path: Path) -> None:
    entries = [file(b"f%d" % i, os.urandom(i * 997)) for i in range(80)]
    data = archive(*entries) + bytes(9000)
    other = tmp_path / "other"
    other.mkdir()
    plain = apply(io.BytesIO(data), other)
    compressed = apply(io.BytesIO(gzip.compress(data, 1)), layer)
    assert plain == compressed
    assert plain.size == len(data)
    assert plain.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert describe(layer) == describe(other)


def test_a_blob_that_is_cut_short(layer: Path) -> None:
    with pytest.raises(SourceError, match="too early"):
        apply(io.BytesIO(gzip.compress(archive(file(b"f", os.urandom(5_000_000))))[:-9]), layer)


def test_times_before_1970_and_beyond_2038(layer: Path) -> None:
    put(layer, file(b"old", mtime=-5 * SECOND), file(b"far", mtime=(1 << 33) * SECOND))
    assert (layer / "old").stat().st_mtime_ns == -5 * SECOND
    assert (layer / "far").stat().st_mtime_ns == (1 << 33) * SECOND
