"""Turns a layer into a blob: reading, hashing and compressing overlap on all cores.

Every step in a thread is one block and waits for nobody, so any number of layers can be exported at once. Blocks are
compressed side by side and written in order; the bytes do not depend on how many cores there are.

This module must not know where blobs are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Protocol

import trio

from buildengine.digest import Digest
from buildengine.limits import COMPRESS, DISK, HASH, offload
from buildengine.values import dataclass
from worker.layers.compress import Buffer, Check, Encoder, encoder
from worker.layers.compression import Compression
from worker.layers.decompress import decompress
from worker.layers.outcome import one_error
from worker.layers.write import PLAIN, Shape, layer_blocks

_WORKERS = len(os.sched_getaffinity(0))
_AHEAD = _WORKERS + 2


class Blob(Protocol):
    """What the store says about a blob that it has."""

    @property
    def digest(self) -> Digest: ...
    @property
    def size(self) -> int: ...


class BlobWriter(Protocol):
    """A blob that is being written."""

    def write(self, data: Buffer, /) -> object: ...
    def commit(self) -> Blob: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerExport:
    """A layer's blob. `encoder` names who compressed it: other encoders may make other bytes of the same layer."""

    diff_id: Digest
    digest: Digest
    size: int
    uncompressed_size: int
    encoder: str


async def export_layer(
    directory: Path | int,
    lower: int | None,
    *,
    compression: Compression,
    level: int | None = None,
    reproducible: bool = False,
    epoch: int | None = None,
    shape: Shape = PLAIN,
    open_writer: Callable[[], AbstractContextManager[BlobWriter]],
) -> LayerExport:
    """Write the layer in `directory`, on the merged tree `lower`, as a blob into the writer.

    `reproducible` asks for bytes that are the same on every processor; times after `epoch` become `epoch`.
    """
    made_by = encoder(compression, level, reproducible=reproducible)
    with (
        one_error(),
        layer_blocks(directory, lower, epoch=epoch, block_size=made_by.block_size, shape=shape) as blocks,
        open_writer() as writer,
    ):
        return await _write(blocks, writer, made_by)


async def convert_layer(
    blob: BinaryIO,
    *,
    compression: Compression,
    level: int | None = None,
    reproducible: bool = False,
    open_writer: Callable[[], AbstractContextManager[BlobWriter]],
) -> LayerExport:
    """Write the layer that came as `blob`, compressed otherwise: the archive in it stays as it is."""
    made_by = encoder(compression, level, reproducible=reproducible)
    with one_error(), open_writer() as writer:
        return await _write(_PlainBlocks(blob, made_by.block_size), writer, made_by)


class _Blocks(Protocol):
    """An archive in blocks that are all full but the last. A block stays as it is until it is given back."""

    def __iter__(self) -> Iterator[memoryview]: ...
    def recycle(self, block: memoryview, /) -> None: ...


class _PlainBlocks:
    """The archive in a blob."""

    def __init__(self, blob: BinaryIO, size: int) -> None:
        self._blob = blob
        self._size = size

    def __iter__(self) -> Iterator[memoryview]:
        plain = decompress(self._blob)
        while True:
            block = bytearray()
            while len(block) < self._size and (piece := plain.read(self._size - len(block))):
                block += piece
            if not block:
                return
            yield memoryview(block)

    def recycle(self, block: memoryview) -> None:
        """Every block is a new one."""


async def _write(blocks: _Blocks, writer: BlobWriter, made_by: Encoder) -> LayerExport:
    check = Check()
    begun = iter(blocks)
    first, blob = await offload(_begin, begun, writer, made_by, check, limiter=COMPRESS)
    if blob is None:
        await _Pipeline(blocks, writer, made_by, check).run(chain(first, begun))
        blob = await offload(_end, writer, made_by, check, limiter=DISK)
    return LayerExport(
        diff_id=Digest.of_hex(check.hexdigest()),
        digest=blob.digest,
        size=blob.size,
        uncompressed_size=check.size,
        encoder=made_by.name,
    )


def _begin(
    blocks: Iterator[memoryview], writer: BlobWriter, made_by: Encoder, check: Check
) -> tuple[Sequence[memoryview], Blob | None]:
    """All of a layer that is one block, which is not worth a way through several threads; else its first blocks."""
    first = list(islice(blocks, 2))
    writer.write(made_by.head)
    if len(first) > 1:
        return first, None
    for block in first:
        check.update(block)
        writer.write(made_by.block(block))
    return (), _end(writer, made_by, check)


def _end(writer: BlobWriter, made_by: Encoder, check: Check) -> Blob:
    writer.write(made_by.tail(check.crc, check.size))
    return writer.commit()


class _Job:
    """A block on its way: `done` is set when `result` is there."""

    def __init__(self, block: memoryview) -> None:
        self.block = block
        self.result: Buffer = b""
        self.done = trio.Event()


class _Pipeline:
    """produce -> hash -> write in order, and beside it compress in any order."""

    def __init__(self, blocks: _Blocks, writer: BlobWriter, made_by: Encoder, check: Check) -> None:
        self._check = check
        self._blocks = blocks
        self._writer = writer
        self._encoder = made_by

    async def run(self, blocks: Iterator[memoryview]) -> None:
        to_compress, compressing = trio.open_memory_channel[_Job](_AHEAD)
        to_hash, hashing = trio.open_memory_channel[_Job](_AHEAD)
        to_write, writing = trio.open_memory_channel[_Job](_AHEAD)
        async with trio.open_nursery() as nursery:
            for _ in range(_WORKERS):
                nursery.start_soon(self._compress, compressing.clone())
            compressing.close()
            nursery.start_soon(self._hash, hashing, to_write)
            nursery.start_soon(self._write, writing)
            with to_compress, to_hash:
                while (block := await offload(next, blocks, None, limiter=DISK)) is not None:
                    job = _Job(block)
                    await to_compress.send(job)
                    await to_hash.send(job)

    async def _compress(self, jobs: trio.MemoryReceiveChannel[_Job]) -> None:
        with jobs:
            async for job in jobs:
                job.result = await offload(self._encoder.block, job.block, limiter=COMPRESS)
                job.done.set()

    async def _hash(self, jobs: trio.MemoryReceiveChannel[_Job], then: trio.MemorySendChannel[_Job]) -> None:
        with jobs, then:
            async for job in jobs:
                await offload(self._check.update, job.block, limiter=HASH)
                await then.send(job)

    async def _write(self, jobs: trio.MemoryReceiveChannel[_Job]) -> None:
        with jobs:
            async for job in jobs:
                await job.done.wait()
                await offload(self._writer.write, job.result, limiter=DISK)
                self._blocks.recycle(job.block)
