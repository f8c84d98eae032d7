"""From a layer to a blob on all cores: the same bytes as in one thread, and nothing left behind when it fails."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trio

from buildengine.digest import Digest
from buildengine.errors import SourceError, StoreError
from tests.unit.layers_trees import packed, written
from worker.layers import compress
from worker.layers.compress import Buffer, encoder
from worker.layers.compression import Compression
from worker.layers.export import convert_layer, export_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    digest: Digest
    size: int


class Memory:
    """A blob in memory."""

    def __init__(self) -> None:
        self.data = io.BytesIO()
        self.left = 0

    def write(self, data: Buffer) -> int:
        return self.data.write(data)

    def commit(self) -> Info:
        value = self.data.getvalue()
        return Info(digest=Digest.sha256(value), size=len(value))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left += 1


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    root = tmp_path / "layer"
    (root / "d").mkdir(parents=True)
    (root / "d" / "big").write_bytes(os.urandom(1000) * 9000)
    for i in range(300):
        (root / "d" / f"f{i}").write_bytes(b"%d" % i * i)
    return root


@pytest.mark.parametrize("compression", list(Compression))
async def test_a_blob_is_what_one_thread_makes(layer: Path, compression: Compression) -> None:
    plain, blob = written(layer), Memory()
    alone = packed(plain, encoder(compression))

    done = await export_layer(layer, None, compression=compression, open_writer=lambda: blob)

    assert blob.data.getvalue() == alone
    assert (done.diff_id, done.uncompressed_size) == (Digest.sha256(plain), len(plain))
    assert (done.digest, done.size) == (Digest.sha256(alone), len(alone))
    assert done.encoder == encoder(compression).name


@pytest.mark.parametrize("before", list(Compression))
@pytest.mark.parametrize("after", list(Compression))
async def test_a_converted_blob_holds_the_same_archive(layer: Path, before: Compression, after: Compression) -> None:
    came, made, again = Memory(), Memory(), Memory()
    original = await export_layer(layer, None, compression=before, open_writer=lambda: came)
    came.data.seek(0)

    done = await convert_layer(came.data, compression=after, open_writer=lambda: made)

    assert done == await export_layer(layer, None, compression=after, open_writer=lambda: again)
    assert made.data.getvalue() == again.data.getvalue()
    assert done.diff_id == original.diff_id


async def test_a_damaged_blob_is_not_converted() -> None:
    blob = Memory()
    with pytest.raises(SourceError, match="gzip"):
        await convert_layer(io.BytesIO(b"\x1f\x8b\x08damaged"), compression=Compression.ZSTD, open_writer=lambda: blob)
    assert blob.left == 1


async def test_an_empty_layer(tmp_path: Path) -> None:
    blob = Memory()
    done = await export_layer(tmp_path, None, compression=Compression.UNCOMPRESSED, open_writer=lambda: blob)
    assert (done.uncompressed_size, blob.data.getvalue()) == (1024, bytes(1024))


async def test_a_failing_sink_is_the_error(layer: Path) -> None:
    class Full(Memory):
        def write(self, data: Buffer) -> int:
            raise StoreError("the store is full")

    blob = Full()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError, match="full"):
        await export_layer(layer, None, compression=Compression.GZIP, open_writer=lambda: blob)
    assert (blob.left, len(os.listdir("/proc/self/fd"))) == (1, before)


async def test_cancelling_leaves_nothing(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope, blob = trio.CancelScope(), Memory()
    original = compress.Check.update

    def cancel(check: compress.Check, data: Buffer) -> None:
        trio.from_thread.run_sync(scope.cancel)
        original(check, data)

    monkeypatch.setattr(compress.Check, "update", cancel)
    before = len(os.listdir("/proc/self/fd"))
    with scope:
        await export_layer(layer, None, compression=Compression.GZIP, open_writer=lambda: blob)
    assert scope.cancelled_caught
    assert (blob.left, len(os.listdir("/proc/self/fd"))) == (1, before)
