"""Directories sent and received: on disk the copy is the original, and nothing that a peer sends leaves its root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from buildengine.api.fspackets_pb2 import Packet, Stat
from buildengine.api.fsreceive import receive
from buildengine.api.fssend import send
from buildengine.api.fsutil import ProtocolError, go_mode
from buildengine.errors import ContextError
from cache.selection import PatternFilter, Verdict
from tests.fakes.packet_pair import End, directory, pair, told, transfer

Seen = dict[str, tuple[object, ...]]
END = Packet(type=Packet.STAT)


def seen(root: Path) -> Seen:
    """Everything that is to be the same, by path; of names of one file which belong together."""
    found: Seen = {}
    groups: dict[int, list[str]] = {}
    for path in sorted(root.rglob("*")):
        info, name = path.lstat(), str(path.relative_to(root))
        kind = stat.S_IFMT(info.st_mode)
        content: object = os.readlink(path) if kind == stat.S_IFLNK else None
        if kind == stat.S_IFREG:
            content = (path.read_bytes(), {key: os.getxattr(path, key) for key in os.listxattr(path)})
        found[name] = (info.st_mode, info.st_mtime_ns, info.st_rdev, content)
        if kind != stat.S_IFDIR:
            groups.setdefault(info.st_ino, []).append(name)
    return {**found, "names of one file": tuple(sorted(map(tuple, groups.values())))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with one of everything."""
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"content")
    os.setxattr(root / "a" / "file", "user.note", b"\0\xff")
    (root / "a" / "b" / "large").write_bytes(os.urandom(5 << 20))
    (root / "empty").touch()
    (root / os.fsdecode(b"latin-\xe9")).touch()
    (root / "a-b").write_bytes(b"sorts after a and all that is in it")
    os.symlink("../file", root / "a" / "b" / "link")
    os.symlink("/nowhere/at/all", root / "dangling")
    os.link(root / "a" / "file", root / "a.other")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o622, os.makedev(1, 3))
    os.chown(root / "a-b", 1234, 4321)
    os.chmod(root / "a-b", 0o6751)
    os.chmod(root / "a" / "b", 0o1700)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number), follow_symlinks=False)
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


async def test_a_copy_is_the_original(source: Path, target: Path) -> None:
    received = await transfer(source, target)
    assert seen(target) == seen(source)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in target.glob("*-b")} == {(os.geteuid(), os.getegid())}
    assert (received.files, received.short) == (5, ())
    files = {os.fsencode(p.relative_to(source)): p for p in source.rglob("*") if p.is_file() and not p.is_symlink()}
    del files[b"a/file"], files[b"a.other"]  # attributes; a link to it
    assert received.digests == {name: blake3(path.read_bytes()).digest() for name, path in files.items()}


async def test_what_is_there_already_is_not_sent(source: Path, target: Path) -> None:
    await transfer(source, target)
    inodes = {path: path.lstat().st_ino for path in target.rglob("*")}
    again = await transfer(source, target)
    assert again.files == 0
    assert {path: path.lstat().st_ino for path in target.rglob("*")} == inodes
    assert (await transfer(source, target, trust=False)).files == 5
    assert seen(target) == seen(source)


async def test_one_changed_file_is_a_new_inode(source: Path, target: Path, tmp_path: Path) -> None:
    await transfer(source, target)
    os.link(target / "a-b", tmp_path / "kept")
    (source / "a-b").write_bytes(b"other")
    received = await transfer(source, target)
    assert received.files == 1
    assert (tmp_path / "kept").read_bytes() == b"sorts after a and all that is in it"
    assert seen(target) == seen(source)


async def test_whatever_is_gone_or_of_another_kind_is_replaced(source: Path, target: Path) -> None:
    await transfer(source, target)
    (source / "empty").unlink()
    (source / "empty").mkdir()
    (source / "empty" / "inner").touch()
    (source / "a" / "b" / "large").unlink()
    os.rename(source / "a" / "b", source / "moved")
    (source / "a" / "b").write_bytes(b"was a directory")
    (source / "fifo").unlink()
    os.symlink("a", source / "fifo")
    (source / "dangling").unlink()
    os.link(source / "a-b", source / "dangling")
    await transfer(source, target)
    assert seen(target) == seen(source)


async def test_a_link_becomes_a_file_of_its_own(source: Path, target: Path) -> None:
    await transfer(source, target)
    (source / "a.other").unlink()
    (source / "a.other").write_bytes(b"content")
    info = (source / "a" / "file").stat()
    os.utime(source / "a.other", ns=(0, info.st_mtime_ns))
    await transfer(source, target)
    assert seen(target) == seen(source)


async def test_only_what_is_kept_is_sent(source: Path, target: Path) -> None:
    await transfer(source, target, PatternFilter(["a/b/l*", "a.*"], ["**/link"]))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["a", "a.other", "a/b", "a/b/large"]
    assert (target / "a.other").read_bytes() == b"content"


async def test_a_merge_removes_nothing_else(source: Path, target: Path) -> None:
    (target / "mine").write_bytes(b"mine")
    (target / "a").write_bytes(b"in the way")
    (target / "empty").mkdir()
    (target / "empty" / "inner").touch()
    await transfer(source, target, merge=True)
    (target / "mine").unlink()
    os.utime(target, ns=(0, 0))
    assert seen(target) == seen(source)


async def test_of_what_is_not_wanted_only_the_stats_are_taken(source: Path, target: Path) -> None:
    for files in (1, 0):
        received = await transfer(source, target, wanted=lambda path: path in ("a/b/link", "empty"))
        assert (received.files, received.entries) == (files, len(list(source.rglob("*"))))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        ".fsutil-metadata",
        "a",
        "a/b",
        "a/b/link",
        "empty",
    ]
    data = (target / ".fsutil-metadata").read_bytes()
    stats = []
    while data:
        length = int.from_bytes(data[:4], "little")
        stats.append(Stat.FromString(data[4 : 4 + length]))
        data = data[4 + length :]
    assert [found.path for found in stats][:3] == [b"a", b"a/b", b"a/b/large"]
    assert len(stats) == received.entries


async def test_a_symlink_in_the_target_leads_nowhere(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", target / "a")
    os.symlink(tmp_path / "outside" / "file", target / "empty")
    await transfer(source, target, merge=True)
    assert os.listdir(tmp_path / "outside") == []
    assert seen(target) == seen(source)


def listed(path: str, mode: int = stat.S_IFREG | 0o644, *, link: bytes = b"", size: int = 0) -> Packet:
    return Packet(type=Packet.STAT, stat=Stat(path=path.encode(), mode=go_mode(mode), link=link, size=size))


def data(number: int, content: bytes = b"") -> Packet:
    return Packet(type=Packet.DATA, id=number, data=content)


@pytest.mark.parametrize(
    ("packets", "why"),
    [
        ([listed("../up")], "out of order|no path"),
        ([listed("/etc")], "no path|order"),
        ([listed("d", stat.S_IFLNK | 0o777, link=b"/tmp"), listed("d/evil")], "without its directory"),
        ([listed("a"), END, data(1, b"x")], "not asked for"),
        ([listed("a"), data(0), data(0, b"x")], "not asked for"),
        ([listed("b"), listed("a")], "out of order"),
        ([listed("b"), END, listed("c")], "after the end"),
        ([listed("a")], "before it had sent everything"),
        ([listed("a"), Packet(type=Packet.FIN)], "does not belong here"),
        ([Packet(type=Packet.STAT, stat=Stat(path=b"a", mode=1 << 24))], "no kind of file"),
        ([listed("a", link=b"/etc/shadow")], "not listed"),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_told_so(packets: list[Packet], why: str, target: Path) -> None:
    with pytest.raises(ProtocolError, match=why):
        await told(target, packets)
    assert [path for path in target.rglob("*") if not path.is_symlink()] == []


@pytest.mark.parametrize("size", [1, 64 << 10])
async def test_many_unfinished_files_are_too_many(size: int, target: Path) -> None:
    """Also those of which nothing was written yet: each packet would go through all of them."""
    count = 200
    packets = [listed(f"{number:03}", size=1 << 20) for number in range(count)]
    packets += [data(number, bytes(size)) for number in range(count)]
    with pytest.raises(ProtocolError, match="at once"):
        await told(target, [*packets, END])
    assert os.listdir(target) == []


async def test_the_senders_error_is_the_error(target: Path) -> None:
    with pytest.raises(ContextError, match="no space on my disk"):
        await told(target, [listed("a"), Packet(type=Packet.ERR, data=b"no space on my disk")])


async def test_a_file_that_came_short_is_named(target: Path) -> None:
    received = await told(target, [listed("a", size=5), listed("b", size=2), END, data(0), data(1, b"ok"), data(1)])
    assert received.short == ("a",)
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"", b"ok")


async def test_a_file_that_cannot_be_opened_is_sent_empty(source: Path, target: Path) -> None:
    gone = source / "empty"
    gone.write_bytes(b"not empty")

    def keep(path: str, is_dir: bool) -> Verdict:
        return Verdict.KEEP

    sender, receiver = pair()
    async with directory(source) as there, directory(target) as here, trio.open_nursery() as nursery:
        nursery.start_soon(send, _Removing(sender, gone), there, keep)
        received = await receive(receiver, here, {})
    assert received.short == ("empty",)


class _Removing:
    """A sender's end at which `path` goes as soon as it was listed."""

    def __init__(self, end: End, path: Path) -> None:
        self._end, self._path = end, path

    async def send(self, message: Packet) -> None:
        if message.stat.path == os.fsencode(self._path.name):
            self._path.unlink()
        await self._end.send(message)

    async def receive(self) -> Packet | None:
        return await self._end.receive()

    async def receive_many(self) -> list[Packet]:
        return await self._end.receive_many()

    async def half_close(self) -> None:
        await self._end.half_close()
