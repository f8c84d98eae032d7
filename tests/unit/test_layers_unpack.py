"""ADD's unpacking: what is an archive, and what becomes of it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from backports import zstd

from buildengine.errors import SourceError
from llb.ops import CopyAction
from tests.unit.layers_trees import WHEN, archive, describe, directory, file, link, symlink, whiteout
from worker.layers.copytree import copy
from worker.layers.tar import END


class Add:
    def __init__(self, base: Path) -> None:
        self.source, self.target = base / "source", base / "target"
        self.source.mkdir()
        self.target.mkdir()

    async def add(
        self,
        src: str,
        dest: str,
        owner: tuple[int, int] | None = None,
        timestamp: int = -1,
        source_owner: tuple[int, int] | None = None,
    ) -> None:
        action = CopyAction(
            src=src,
            dest=dest,
            attempt_unpack=True,
            dir_copy_contents=True,
            create_dest_path=True,
            allow_wildcard=True,
            follow_symlink=True,
            timestamp=timestamp,
        )
        fds = [os.open(tree, os.O_RDONLY | os.O_DIRECTORY) for tree in (self.source, self.target)]
        try:
            await copy(*fds, action, owner=owner, source_owner=source_owner)
        finally:
            for fd in fds:
                os.close(fd)


@pytest.fixture
def add(tmp_path: Path) -> Iterator[Add]:
    before = len(os.listdir("/proc/self/fd"))
    yield Add(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


TAR = archive(
    directory(b"d", mode=0o2750, uid=5, gid=6), file(b"d/f", b"data", mode=0o4755, uid=7), symlink(b"s", b"d/f")
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd.compress])
@pytest.mark.parametrize("name", ["a.tar", "no-suffix", "a.txt"])
async def test_archives_are_known_by_their_contents(add: Add, pack: type[bytes], name: str) -> None:
    (add.source / name).write_bytes(pack(TAR))
    os.symlink(name, add.source / "link")
    await add.add(name, "/out")
    await add.add("link", "/linked/")
    nodes = describe(add.target / "out")
    assert describe(add.target / "linked") == nodes
    assert sorted(nodes) == ["d", "d/f", "s"]
    assert (nodes["d"].mode, nodes["d"].owner, nodes["d"].mtime) == (stat.S_IFDIR | 0o2750, (5, 6), WHEN)
    assert (nodes["d/f"].mode, nodes["d/f"].owner, nodes["d/f"].contents) == (stat.S_IFREG | 0o4755, (7, 0), b"data")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        gzip.compress(b"text" * 500),
        END,
        gzip.compress(b""),
        TAR[:300],
        gzip.compress(TAR)[:40],
        b"\x1f\x8b\x08",
    ],
    ids=[
        "empty",
        "text",
        "gzip of text",
        "empty archive",
        "gzip of nothing",
        "half a header",
        "cut gzip",
        "magic only",
    ],
)
async def test_what_is_no_archive_is_copied(add: Add, data: bytes) -> None:
    (add.source / "file.tar.gz").write_bytes(data)
    await add.add("file.tar.gz", "/out/")
    assert (add.target / "out/file.tar.gz").read_bytes() == data


async def test_wildcards_unpack_each_archive(add: Add) -> None:
    (add.source / "1.tar").write_bytes(archive(file(b"one")))
    (add.source / "2.tar").write_bytes(gzip.compress(archive(file(b"two"))))
    (add.source / "3.tar").write_bytes(b"no archive")
    (add.source / "4.tar").mkdir()
    (add.source / "4.tar" / "inner.tar").write_bytes(TAR)
    await add.add("*.tar", "/out/")
    assert sorted(os.listdir(add.target / "out")) == ["3.tar", "inner.tar", "one", "two"]


async def test_owners_can_be_replaced(add: Add) -> None:
    (add.source / "a").write_bytes(TAR)
    await add.add("a", "/x/y", owner=(11, 12), timestamp=WHEN)
    assert {node.owner for node in describe(add.target).values()} == {(11, 12)}
    assert (add.target / "x/y/d/f").stat().st_mode & 0o7777 == 0o4755


async def test_whiteouts_are_plain_names(add: Add) -> None:
    (add.source / "a").write_bytes(archive(whiteout(b"f"), file(b".wh..wh..opq", b"x"), directory(b".wh.d")))
    (add.target / "f").touch()
    await add.add("a", "/")
    assert sorted(describe(add.target)) == [".wh..wh..opq", ".wh.d", ".wh.f", "f"]


async def test_what_is_there_is_merged_and_replaced(add: Add) -> None:
    (add.target / "d").mkdir()
    (add.target / "d" / "kept").touch()
    (add.target / "d" / "f").mkdir()
    (add.target / "d" / "f" / "deep").touch()
    (add.target / "real").mkdir()
    os.symlink("/real", add.target / "s")
    (add.source / "a").write_bytes(TAR)
    (add.source / "b").write_bytes(archive(file(b"s/through", b"1"), link(b"h", b"s/through")))
    await add.add("b", "/")
    assert (add.target / "real/through").read_bytes() == (add.target / "h").read_bytes() == b"1"
    await add.add("a", "/")
    nodes = describe(add.target)
    assert sorted(nodes) == ["d", "d/f", "d/kept", "h", "real", "real/through", "s"]
    assert nodes["s"].contents == b"d/f"
    assert nodes["d"].owner == (5, 6)


@pytest.mark.parametrize("name", [b"../evil", b"/../../evil", b"up/evil", b"abs/evil"])
async def test_nothing_is_written_outside(add: Add, name: bytes) -> None:
    entries = [symlink(b"up", b"../.."), symlink(b"abs", b"/"), file(name, b"x")]
    (add.source / "a").write_bytes(archive(*entries))
    refused = pytest.raises(SourceError, match="outside") if b".." in name else nullcontext()
    with refused:
        await add.add("a", "/in/")
    assert sorted(os.listdir(add.target.parent)) == ["source", "target"]
    assert sorted(os.listdir(add.target)) == ["in"]


async def test_a_damaged_archive_is_an_error(add: Add) -> None:
    (add.source / "a.gz").write_bytes(gzip.compress(archive(file(b"f", os.urandom(3_000_000))))[:-5000])
    with pytest.raises(SourceError, match="too early"):
        await add.add("a.gz", "/")


async def test_an_archive_has_its_own_owners_whoever_owns_the_context(add: Add) -> None:
    (add.source / "a.tar").write_bytes(TAR)
    (add.source / "plain").write_text("no archive")
    os.chown(add.source / "plain", 3, 4)
    for name in ("a.tar", "plain"):
        await add.add(name, "/to/", source_owner=(1, 2))
    await add.add("a.tar", "/chown/", owner=(8, 9), source_owner=(1, 2))
    owners = {name: node.owner for name, node in describe(add.target).items()}
    assert (owners["to/d"], owners["to/plain"], owners["chown/d"]) == ((5, 6), (1, 2), (8, 9))
