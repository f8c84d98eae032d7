"""Blobs that are written in pieces, out of order: what is absorbed is in the digest, and nothing is believed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from buildengine.digest import Digest
from buildengine.errors import StoreError
from cache.store import ContentStore

DATA = random.Random(2).randbytes(3_000_000)


def test_pieces_in_any_order_make_the_blob(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.writer(expected=Digest.sha256(DATA), size=len(DATA)) as writer:
        writer.write_at(2_000_000, DATA[2_000_000:])
        writer.write(DATA[:500_000])
        writer.write_at(500_000, DATA[500_000:2_000_000])
        assert writer.written == 500_000
        writer.absorb(1_200_000)
        assert writer.digest == Digest.sha256(DATA[:1_200_000])
        writer.absorb(2_000_000)
        writer.absorb(len(DATA))
        writer.commit()
    assert store.path(Digest.sha256(DATA)).read_bytes() == DATA


def test_a_hole_is_no_blob(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.writer(expected=Digest.sha256(DATA), size=len(DATA)) as writer:
        writer.write(DATA[:100])
        writer.write_at(200, DATA[200:])
        writer.absorb(len(DATA))
        with pytest.raises(StoreError, match="digest mismatch"):
            writer.commit()
    with store.writer(expected=Digest.sha256(DATA), size=len(DATA)) as writer:
        writer.write_at(0, DATA[:100])
        with pytest.raises(StoreError, match="lost a piece"):
            writer.absorb(len(DATA))
    assert list((tmp_path / "ingest").iterdir()) == []


def test_no_piece_lies_beyond_the_end(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.writer(size=10) as writer, pytest.raises(StoreError, match="more than the 10 bytes"):
        writer.write_at(5, b"sixsix")
    with store.writer() as writer, pytest.raises(StoreError, match="more than"):
        writer.write_at(0, b"x")  # whoever places pieces knows the size
