"""Blobs: whole and verified, or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.errors import StoreError
from cache.opened import open_cache
from cache.store import ContentStore

HELLO = Digest.sha256(b"hello")


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path)


def ingest(store: ContentStore, tmp_path: Path) -> list[str]:
    return os.listdir(tmp_path / "ingest")


def test_what_is_put_can_be_read(store: ContentStore, tmp_path: Path) -> None:
    info = store.put(b"hello")
    assert info.digest == HELLO
    assert store.info(HELLO) == info
    assert store.read(HELLO) == b"hello"
    assert store.path(HELLO) == tmp_path / "blobs" / "sha256" / HELLO.hex
    assert list(store.list()) == [info]
    store.delete(HELLO)
    store.delete(HELLO)
    assert store.info(HELLO) is None
    with pytest.raises(StoreError, match="not in the store"):
        store.read(HELLO)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_any_pieces_make_the_blob_of_their_sum(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    store = ContentStore(tmp_path_factory.getbasetemp() / "pieces")
    whole = b"".join(pieces)
    with store.writer(expected=Digest.sha256(whole), size=len(whole)) as writer:
        for piece in pieces:
            assert writer.write(memoryview(piece)) == len(piece)
        assert writer.written == len(whole)
        assert writer.commit().size == len(whole)
    with store.open(Digest.sha256(whole)) as stream:
        assert stream.read() == whole


def test_a_writer_that_is_left_leaves_nothing(store: ContentStore, tmp_path: Path) -> None:
    with store.writer() as writer:
        writer.write(b"half")
        assert len(ingest(store, tmp_path)) == 1
    assert ingest(store, tmp_path) == []
    writer.discard()
    assert list(store.list()) == []


def test_wrong_bytes_are_refused(store: ContentStore, tmp_path: Path) -> None:
    with store.writer(expected=HELLO) as writer:
        writer.write(b"hullo")
        with pytest.raises(StoreError, match="digest mismatch: got sha256:"):
            writer.commit()
    with store.writer(expected=HELLO, size=5) as writer:
        writer.write(b"hell")
        with pytest.raises(StoreError, match="4 bytes, not the 5"):
            writer.commit()
    with store.writer(expected=HELLO, size=5) as writer, pytest.raises(StoreError, match="more than the 5 bytes"):
        writer.write(b"hello!")
    assert ingest(store, tmp_path) == []
    assert store.info(HELLO) is None


def test_other_algorithms(store: ContentStore) -> None:
    digest = Digest.of_hex(hashlib.sha512(b"x").hexdigest(), "sha512")
    with store.writer(expected=digest) as writer:
        writer.write(b"x")
        assert writer.commit().digest == digest
    assert store.read(digest) == b"x"
    with pytest.raises(StoreError, match="blake3"):
        store.writer(expected=Digest.of_hex("00" * 32, "blake3"))


def test_damage_is_found_by_whoever_reads(store: ContentStore) -> None:
    store.put(b"hello")
    store.path(HELLO).write_bytes(b"hullo")
    with pytest.raises(StoreError, match="damaged"):
        store.read(HELLO)
    with store.open(HELLO) as stream, pytest.raises(StoreError, match="damaged"):
        b"".join(iter(lambda: stream.read(2), b""))


def test_a_blob_that_changes_its_length_under_its_reader_is_damaged(store: ContentStore) -> None:
    store.put(b"hello")
    with store.open(HELLO) as stream:
        with store.path(HELLO).open("r+b") as file:
            file.write(b"hello" + b"x" * 100)
        with pytest.raises(StoreError, match="damaged"):
            stream.read()
    store.path(HELLO).write_bytes(b"hello")
    with store.open(HELLO) as stream:
        store.path(HELLO).write_bytes(b"hell")
        with pytest.raises(StoreError, match="damaged"):
            stream.read()


def test_reading_whole_is_bounded(store: ContentStore) -> None:
    info = store.put(bytes(1000))
    with pytest.raises(StoreError, match="more than the 999"):
        store.read(info.digest, limit=999)
    assert len(store.read(info.digest, limit=1000)) == 1000


async def test_in_a_cache_a_blob_is_what_has_a_row(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root") as cache:
        info = cache.store.put(b"hello")
        assert list(cache.store.list()) == [info]
        os.unlink(cache.store.path(HELLO))
        assert cache.store.info(HELLO) is None  # it would be fetched again
        cache.store.put(b"hello")
        assert cache.store.read(HELLO) == b"hello"
        cache.store.path(HELLO).write_bytes(b"torn")
        assert cache.store.info(HELLO) is None
        cache.store.put(b"hello")
        assert cache.store.read(HELLO) == b"hello"
        stray = Digest.sha256(b"stray")
        cache.store.path(stray).write_bytes(b"stray")
        assert cache.store.info(stray) is None
        cache.store.delete(HELLO)
        assert not cache.store.path(HELLO).exists()
