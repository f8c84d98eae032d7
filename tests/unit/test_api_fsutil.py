"""fsutil's protocol as values: modes, the order of a listing, what a receiver decides."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.api.fsutil import (
    MAX_XATTR_VALUE,
    MAX_XATTRS,
    Entry,
    Listing,
    ProtocolError,
    Receiving,
    Sending,
    Step,
    check_attributes,
    go_mode,
    st_mode,
)

DIR, FILE, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
NAMES = st.binary(min_size=1, max_size=3).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b".."))
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join), max_size=20)


def listing(entries: list[Entry]) -> Listing:
    found = Listing()
    for entry in entries:
        found.add(entry)
    return found


def test_a_listing_has_a_bound_in_bytes() -> None:
    attributes = {f"user.{number:03}": bytes(MAX_XATTR_VALUE) for number in range(MAX_XATTRS)}
    one = Entry(b"", FILE, xattrs=attributes)
    with pytest.raises(ProtocolError, match="1024 MiB"):
        listing([one._replace(path=b"%03d" % number) for number in range(65)])


def go_less(one: bytes, other: bytes) -> bool:
    """fsutil's ComparePath, as its text says: byte by byte, a slash before everything else."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            return b != ord("/") and (a == ord("/") or a < b)
    return len(one) < len(other)


def tree(paths: list[bytes]) -> list[Entry]:
    """Files at `paths` with the directories they need, in the order of a listing."""
    directories = {path[:end] for path in paths for end in range(len(path)) if path[end : end + 1] == b"/"}
    files = set(paths) - directories
    keyed = sorted(files | directories, key=lambda path: path.split(b"/"))
    return [Entry(path, DIR if path in directories else FILE) for path in keyed]


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
        (stat.S_IFREG | 0o2755, 1 << 22 | 0o755),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFBLK | 0o660, 1 << 26 | 0o660),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
    ],
)
def test_modes_are_those_of_go(mode: int, go: int) -> None:
    assert go_mode(mode) == go
    assert st_mode(go) == mode


def test_modes_of_real_files_come_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("fifo", tmp_path / "link")
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (tmp_path / "dir").mkdir()
    for mode in range(0o10000):
        (tmp_path / "file").touch() if mode == 0 else None
        if mode % 97 == 0:
            (tmp_path / "file").chmod(mode)
            found = os.lstat(tmp_path / "file").st_mode
            assert st_mode(go_mode(found)) == found
    for path in tmp_path.iterdir():
        found = os.lstat(path).st_mode
        assert st_mode(go_mode(found)) == found


@pytest.mark.parametrize("go", [1 << 24, 1 << 19, 1 << 21, 1 << 31 | 1 << 27, 1 << 27 | 1 << 25])
def test_what_is_no_kind_of_file_is_refused(go: int) -> None:
    with pytest.raises(ProtocolError, match="no kind of file"):
        st_mode(go)


@given(PATHS)
def test_a_walk_is_in_the_order_that_fsutil_compares_by(paths: list[bytes]) -> None:
    entries = tree(paths)
    assert listing(entries).count == len(entries)
    assert all(go_less(a.path, b.path) for a, b in itertools.pairwise(entries))


@given(PATHS.filter(lambda paths: len(tree(paths)) > 1), st.data())
def test_any_other_order_is_refused(paths: list[bytes], data: st.DataObject) -> None:
    entries = tree(paths)
    shuffled = data.draw(st.permutations(entries))
    if [e.path for e in shuffled] == [e.path for e in entries]:
        return
    with pytest.raises(ProtocolError, match="out of order"):
        listing(list(shuffled))


@pytest.mark.parametrize(
    "path", [b"", b"/", b"/a", b"/z", b"a/", b"a//b", b"../a", b"..", b".", b"a/../b", b"b/c", b"a\0b"]
)
def test_unclean_paths_are_refused(path: bytes) -> None:
    with pytest.raises(ProtocolError):
        listing([Entry(b"a", DIR), Entry(path, FILE)])


@pytest.mark.parametrize("path", [b"n" * 256, b"/".join([b"d" * 200] * 30)])
def test_paths_longer_than_linux_has_them_are_refused(path: bytes) -> None:
    with pytest.raises(ProtocolError, match="no path that can be received"):
        listing(tree([path]))


def test_nothing_lies_in_a_symlink_or_a_file() -> None:
    for mode, link in ((LINK, b"/etc"), (FILE, b"")):
        with pytest.raises(ProtocolError, match="without its directory"):
            listing([Entry(b"a", mode, link=link), Entry(b"a/b", FILE)])


def test_a_hard_link_leads_to_an_earlier_file() -> None:
    listing([Entry(b"a", FILE), Entry(b"b", FILE, link=b"a")])
    for first in (Entry(b"a", DIR), Entry(b"a", LINK, link=b"b"), Entry(b"a1", FILE)):
        with pytest.raises(ProtocolError, match="not listed"):
            listing([first, Entry(b"b", FILE, link=b"a")])


@pytest.mark.parametrize("target", [b"", b"x" * 4096, b"a\0b"])
def test_a_symlink_leads_somewhere(target: bytes) -> None:
    with pytest.raises(ProtocolError, match="symlink"):
        listing([Entry(b"a", LINK, link=target)])


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"a", FILE, size=-1),
        Entry(b"a", stat.S_IFCHR, device=(1 << 12, 0)),
        Entry(b"a", stat.S_IFCHR, device=(0, -1)),
        Entry(b"a", FILE, xattrs={"user.a": b"x" * (MAX_XATTR_VALUE + 1)}),
        Entry(b"a", FILE, xattrs={"n" * 256: b""}),
        Entry(b"a", FILE, xattrs={f"user.{n}": b"" for n in range(MAX_XATTRS + 1)}),
    ],
)
def test_attributes_have_bounds(entry: Entry) -> None:
    with pytest.raises(ProtocolError):
        check_attributes(entry)


OLD = Entry(b"f", FILE, 1, 2, 10, 1000)


def decided(old: list[Entry], new: list[Entry], *, trust: bool = True) -> tuple[list[Step], Receiving]:
    receiving = Receiving({entry.path: entry for entry in old}, trust=trust)
    return [receiving.step(entry, receiving.listed(entry)) for entry in new], receiving


def test_what_is_equal_is_kept() -> None:
    steps, receiving = decided([OLD], [OLD._replace(uid=0, gid=0)])
    assert steps == [Step.KEEP]
    assert (receiving.gone(), receiving.waiting, receiving.touched) == ([], 0, {})
    assert receiving.affected() == frozenset()


@pytest.mark.parametrize(
    "new",
    [
        OLD._replace(mode=FILE | 0o100),
        OLD._replace(size=11),
        OLD._replace(mtime_ns=1001),
        OLD._replace(xattrs={"user.a": b"1"}),
    ],
)
def test_whatever_differs_is_fetched(new: Entry) -> None:
    steps, receiving = decided([OLD], [new])
    assert steps == [Step.FETCH]
    assert receiving.wanted(0) == new


def test_without_trust_files_are_fetched_and_directories_kept() -> None:
    entries = [Entry(b"d", DIR), Entry(b"f", FILE)]
    assert decided(entries, entries, trust=False)[0] == [Step.KEEP, Step.FETCH]


def test_a_link_to_a_file_that_is_fetched_is_made_anew() -> None:
    old = [Entry(b"a", FILE, size=1), Entry(b"b", FILE, size=1, link=b"a")]
    assert decided(old, old)[0] == [Step.KEEP, Step.KEEP]
    assert decided([old[0]._replace(size=2), old[1]], old)[0] == [Step.FETCH, Step.LINK]
    assert decided([old[0], old[1]._replace(link=b"")], old)[0] == [Step.KEEP, Step.LINK]


def test_what_is_not_listed_goes_without_what_is_in_it() -> None:
    old = [Entry(b"a", DIR), Entry(b"a/x", FILE), Entry(b"b", DIR), Entry(b"b/y", FILE), Entry(b"c", DIR)]
    steps, receiving = decided(old, [Entry(b"b", DIR, mtime_ns=7), Entry(b"c", FILE)])
    assert steps == [Step.KEEP, Step.FETCH]
    assert receiving.gone() == [b"a", b"b/y"]
    assert receiving.touched == {b"b": 7}


def test_where_something_has_another_stat() -> None:
    old = [Entry(b"a", DIR), Entry(b"a/x", FILE), Entry(b"b", DIR), Entry(b"b/c", DIR), Entry(b"b/c/y", FILE)]
    _, receiving = decided(old, [*old[:4], old[4]._replace(size=1)])
    assert receiving.affected() == {b"b/c", b"b"}  # the second for the times of the first
    _, receiving = decided(old, old[2:])
    receiving.gone()
    assert receiving.affected() == {b""}
    _, receiving = decided(old, [*old, Entry(b"z", FILE, link=b"a/x")])
    assert receiving.affected() is None


def test_data_that_was_not_asked_for_is_refused() -> None:
    _, receiving = decided([OLD], [OLD, Entry(b"g", FILE)])
    with pytest.raises(ProtocolError, match="not asked for"):
        receiving.wanted(0)
    receiving.whole(1)
    with pytest.raises(ProtocolError, match="not asked for"):
        receiving.wanted(1)


def test_a_file_is_sent_once_and_only_if_it_was_listed() -> None:
    sending = Sending()
    for entry in (Entry(b"d", DIR), Entry(b"d/f", FILE), Entry(b"l", LINK, link=b"d")):
        sending.listed(entry)
    assert sending.requested(1) == b"d/f"
    for number in (0, 1, 2, 3):
        with pytest.raises(ProtocolError, match="asked for"):
            sending.requested(number)
