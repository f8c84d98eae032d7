"""The index of a user's directory: fast when nothing changed, never wrong when something did."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from buildengine.digest import Digest
from buildengine.errors import ContextChanged, ContextError
from cache import filehash, schema
from cache.db import Database
from cache.localindex import LocalIndex
from cache.localscan import LocalScan
from cache.packed import pack, unpack
from cache.selection import Filter, PatternFilter, Selector
from tests.fakes import cache_trees as trees

LATER = 3_600_000_000_000
"""An hour: what was written a moment ago is old enough to be trusted."""


class Context:
    """A directory and its index, whose clock is ahead."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = tmp_path / "context"
        self.path.mkdir()
        self.db = Database(tmp_path / "meta.db")
        self.db.write_nowait(schema.create)
        self.ahead = LATER
        self.boot = "boot"
        self.reads = 0
        read = filehash.hash_open_file

        def counting(fd: int, size: int) -> bytes:
            self.reads += 1
            return read(fd, size)

        monkeypatch.setattr(filehash, "hash_open_file", counting)

    def write(self, tree: Mapping[str, object]) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        trees.write(fd, tree)
        os.close(fd)

    @asynccontextmanager
    async def scan(self, keep: Filter | None = None, key: str = "") -> AsyncIterator[LocalScan]:
        index = LocalIndex(self.db, self.boot, clock=lambda: time.time_ns() + self.ahead)
        scan = await index.scan(self.path, keep=keep, filter_key=key)
        try:
            yield scan
            await index.save(scan)
        finally:
            scan.close()

    async def digest(self, path: str = "/") -> tuple[Digest, int]:
        """The digest, and how many files were read for it."""
        before = self.reads
        async with self.scan() as scan:
            found = await scan.content_digest([Selector(path=path)])
        return found, self.reads - before


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    context = Context(tmp_path, monkeypatch)
    context.write({"a": b"1", "d": {"b": b"22", "l": "b", "e": {}}, "s": {"t": {"u": b"333"}}})
    return context


async def test_what_did_not_change_is_not_read(context: Context) -> None:
    first, reads = await context.digest()
    assert reads == 3
    assert await context.digest() == (first, 0)
    assert (await context.digest("d"))[1] == 0


async def test_only_what_is_selected_is_read(context: Context) -> None:
    assert (await context.digest("d"))[1] == 1
    assert (await context.digest("a"))[1] == 1
    assert (await context.digest())[1] == 1


async def test_a_touched_file_is_read_again_and_is_the_same(context: Context) -> None:
    first, _ = await context.digest()
    os.utime(context.path / "a")
    assert await context.digest() == (first, 1)
    assert await context.digest() == (first, 0)


async def test_size_and_mtime_put_back_are_no_disguise(context: Context) -> None:
    first, _ = await context.digest()
    info = (context.path / "a").stat()
    (context.path / "a").write_bytes(b"2")
    os.utime(context.path / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    second, reads = await context.digest()
    assert reads == 1
    assert second != first


async def test_what_is_as_new_as_the_scan_is_read_again(context: Context) -> None:
    context.ahead = -LATER  # everything is newer than that
    first, reads = await context.digest()
    assert reads == 3
    assert await context.digest() == (first, 3)
    context.ahead = LATER
    assert await context.digest() == (first, 3)
    assert await context.digest() == (first, 0)


async def test_every_kind_of_change_is_seen(context: Context) -> None:
    seen = {(await context.digest())[0]}

    async def changed() -> bool:
        found, _ = await context.digest()
        assert (await context.digest())[0] == found
        new = found not in seen
        seen.add(found)
        return new

    context.write({"new": b""})
    assert await changed()
    context.write({"d": {"b": None}})
    assert await changed()
    (context.path / "d" / "e").rmdir()
    assert await changed()
    os.rename(context.path / "s" / "t" / "u", context.path / "s" / "u")
    assert await changed()
    os.chmod(context.path / "a", 0o600)
    assert await changed()
    os.setxattr(context.path / "a", "user.x", b"1")
    assert await changed()
    os.unlink(context.path / "d" / "l")
    os.symlink("c", context.path / "d" / "l")
    assert await changed()
    os.chmod(context.path, 0o700)
    assert await changed()
    os.mkfifo(context.path / "pipe")
    assert await changed()


async def test_owners_do_not_count(context: Context) -> None:
    first, _ = await context.digest()
    os.chown(context.path / "a", 1000, 1000)
    assert (await context.digest())[0] == first


async def test_another_boot_distrusts_the_last_minutes(context: Context) -> None:
    context.ahead = 60_000_000_000
    first, _ = await context.digest()
    assert await context.digest() == (first, 0)
    context.boot = "another"
    assert await context.digest() == (first, 3)
    context.ahead = LATER
    context.boot = "a third"
    await context.digest()
    context.boot = "a fourth"
    assert await context.digest() == (first, 0)


async def test_a_damaged_index_is_no_index(context: Context) -> None:
    first, _ = await context.digest()
    context.db.write_nowait(lambda c: c.execute("UPDATE local_indexes SET data = substr(data, 1, 200)").rowcount)
    assert await context.digest() == (first, 3)


def test_packed_values_come_back_or_do_not() -> None:
    value = {"a": (1, b"x", None, 2**70, "\udc80")}
    data = pack(value)
    assert unpack(data) == value
    assert unpack(data[:-1]) is None
    assert unpack(data[:-1] + b"?") is None
    assert unpack(b"") is None
    assert unpack(b"x" + data[1:]) is None


async def test_what_is_kept_is_written_once_also_after_closing(context: Context) -> None:
    index = LocalIndex(context.db, "boot", clock=lambda: time.time_ns() + LATER)
    scan = await index.scan(context.path)
    for path in ("a", "d"):
        await scan.content_digest([Selector(path=path)])
        index.keep(scan)
    assert context.db.read(lambda c: c.execute("SELECT count(*) FROM local_indexes").fetchone()) == (0,)
    scan.close()
    await index.flush()
    await index.flush()
    assert (await context.digest("d"))[1] == 0
    assert (await context.digest("/"))[1] == 1


async def test_entries_for_copying(context: Context) -> None:
    async with context.scan() as scan:
        entries = list(scan.entries())
        assert [entry.path for entry in entries] == ["a", "d", "s", "d/b", "d/e", "d/l", "s/t", "s/t/u"]
        assert [entry.path for entry in scan.entries("s")] == ["s/t", "s/t/u"]
        link = scan.entry("d/l")
        assert link is not None
        assert link.target == "b"
        assert scan.entry("nothing") is None
        assert "b" in scan.names("d")
        assert "x" not in scan.names("d")
        assert "x" not in scan.names("nothing")
        assert scan.is_current("a", os.stat(context.path / "a"))
        os.utime(context.path / "a")
        assert not scan.is_current("a", os.stat(context.path / "a"))


async def test_who_copies_can_tell_what_was_read(context: Context) -> None:
    first, _ = await context.digest()
    context.write({"a": None})
    context.write({"a": b"1"})
    async with context.scan() as scan:
        scan.learn("a", blake3(b"1").digest())
        before = context.reads
        assert await scan.content_digest() == first
        assert context.reads == before


async def test_filters_keep_parents_of_what_they_keep(context: Context) -> None:
    patterns = ("*", "!d/b", "!s/t")

    async def paths() -> list[str]:
        async with context.scan(PatternFilter(exclude=patterns), "one") as scan:
            await scan.content_digest()
            return [entry.path for entry in scan.entries()]

    assert await paths() == ["d", "s", "d/b", "s/t", "s/t/u"]
    before = context.reads
    assert await paths() == ["d", "s", "d/b", "s/t", "s/t/u"]
    async with context.scan(PatternFilter(exclude=patterns), "one") as scan:
        assert not scan.changed  # dropped directories are no news
        assert scan.memo
    assert context.reads == before
    async with context.scan(PatternFilter(exclude=("s",)), "two") as scan:
        assert [entry.path for entry in scan.entries()] == ["a", "d", "d/b", "d/e", "d/l"]


async def test_what_changes_while_it_is_read_is_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    async with context.scan() as scan:
        monkeypatch.setattr(filehash, "hash_open_file", lambda fd, size: context.write({"a": b"longer"}) or bytes(32))
        with pytest.raises(ContextChanged, match="a changed") as caught:
            await scan.content_digest([Selector(path="a")])
        assert caught.value.path == "a"
    async with context.scan() as scan:
        os.unlink(context.path / "a")
        with pytest.raises(ContextChanged):
            await scan.content_digest([Selector(path="a")])


async def test_a_directory_that_is_none(context: Context) -> None:
    index = LocalIndex(context.db, "boot")
    for path in (context.path / "missing", context.path / "a"):
        with pytest.raises(ContextError, match="cannot open the directory"):
            await index.scan(path)


async def test_no_link_leads_out(context: Context, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    os.symlink("../secret", context.path / "leak")
    os.symlink(tmp_path, context.path / "out")
    async with context.scan() as scan:
        for path in ("leak", "out/secret"):
            with pytest.raises(ContextError, match="not found"):
                await scan.content_digest([Selector(path=path, follow_links=True)])
    async with context.scan() as scan:  # swapped for a link between the scan and the reading
        os.rename(context.path / "s", context.path / "moved")
        os.symlink(tmp_path, context.path / "s")
        with pytest.raises(ContextError):
            await scan.content_digest([Selector(path="s/t/u")])


async def test_old_indexes_are_dropped(context: Context) -> None:
    for number in range(60):
        async with context.scan(key=str(number)):
            pass
    assert context.db.read(lambda c: c.execute("SELECT count(*) FROM local_indexes").fetchone()) == (50,)
