"""A directory that is received again and again: what is known of it is what is there, and next to nothing is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from buildengine.api.fssend import send
from buildengine.api.received import fill
from cache import filehash, schema
from cache.db import Database
from cache.localindex import LocalIndex
from cache.localscan import LocalScan
from tests.fakes.packet_pair import directory, pair
from worker.sources.origin import LocalOrigin


def _link_for_directory(source: Path) -> None:
    os.rename(source / "dir", source / "moved")
    os.symlink("moved", source / "dir")


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda source: None,
    "another content": lambda source: (source / "dir" / "below" / "file").write_bytes(b"other"),
    "a new directory": lambda source: (source / "new" / "a" / "b").mkdir(parents=True),
    "a file in it": lambda source: (source / "new" / "a" / "b" / "c").write_bytes(b"new"),
    "attributes": lambda source: os.setxattr(source / "dir" / "below" / "file", "user.note", b"here"),
    "a mode": lambda source: (source / "dir" / "below").chmod(0o700),
    "a second name": lambda source: os.link(source / "dir" / "below" / "file", source / "linked"),
    "one name less": lambda source: (source / "dir" / "below" / "file").unlink(),
    "a file for a directory": lambda source: (source / "new" / "a" / "b" / "c").rename(source / "new" / "c"),
    "a link for a directory": _link_for_directory,
    "a pipe": lambda source: os.mkfifo(source / "new" / "pipe"),
    "nothing again": lambda source: None,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "dir" / "below").mkdir(parents=True)
    (root / "dir" / "below" / "file").write_bytes(b"content")
    (root / "dir" / "large").write_bytes(os.urandom(3 << 20))
    (root / os.fsdecode(b"latin-\xe9")).touch()
    os.symlink("dir", root / "link")
    return root


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    db = Database(tmp_path / "meta.db")
    db.write_nowait(schema.create)
    return LocalIndex(db, "boot")


async def received(index: LocalIndex, source: Path, target: Path) -> LocalScan:
    sender, receiver = pair()
    async with directory(source) as there, trio.open_nursery() as nursery:
        nursery.start_soon(send, sender, there)
        scan = await fill(index, target, LocalOrigin(name="context"), lambda count: None, receiver)
    await index.save(scan)
    return scan


def stamps(scan: LocalScan) -> dict[str, dict[str, tuple[int, ...]]]:
    return {path: {name: entry[:5] for name, entry in found.items()} for path, found in scan.listings.items()}


async def test_what_is_known_is_what_is_there(index: LocalIndex, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for what, change in CHANGES.items():
        change(source)
        scans = (await received(index, source, target), await index.scan(target), await index.scan(source))
        known, there, original = [await scan.content_digest() for scan in scans]
        assert known == there == original, what
        assert stamps(scans[0]) == stamps(scans[1]), what
        for scan in scans:
            scan.close()


async def test_what_was_written_is_not_read_again(
    index: LocalIndex, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    original = await index.scan(source)
    digest = await original.content_digest()
    original.close()
    monkeypatch.delattr(filehash, "hash_open_file")
    scan = await received(index, source, target)
    assert await scan.content_digest() == digest
    scan.close()
