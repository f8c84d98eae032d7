"""Writes a layer as an archive: what changes (diff.py), as tar (tar.py), in blocks of equal size.

The same layer always gives the same bytes. This module must not know compression, digests of blobs or threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from mmap import mmap
from pathlib import Path

from buildengine.errors import StoreError
from buildengine.values import dataclass
from worker.layers.diff import Differ
from worker.layers.names import shown
from worker.layers.tar import BLOCK, END, TarHeader, encode, padded

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000
_ZEROS = bytes(BLOCK)
BLOCK_SIZE = 2 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How an archive differs from the plain one: entries in front, all others changed, no end because more comes."""

    first: tuple[TarHeader, ...] = ()
    reshape: Callable[[TarHeader], TarHeader] | None = None
    ends: bool = True


PLAIN = Shape()


@contextmanager
def layer_blocks(
    directory: Path | int,
    lower: int | None,
    *,
    epoch: int | None = None,
    block_size: int = BLOCK_SIZE,
    shape: Shape = PLAIN,
) -> Iterator[Blocks]:
    """The archive of the layer in `directory`, in blocks that are all full but the last.

    `lower` is an open directory, the merged tree below the layer; None when there is none. Times after `epoch`
    (seconds) become `epoch`. Raises StoreError when the layer changes meanwhile.
    """
    with ExitStack() as stack:
        if isinstance(directory, int):
            upper = directory
        else:
            upper = os.open(directory, _DIRECTORY)
            stack.callback(os.close, upper)
        differ = Differ(upper, lower)
        stack.callback(differ.close)
        yield Blocks(differ, epoch, block_size, shape)


class Blocks:
    """Lays the entries out in buffers; iterate once. A block stays as it is until it is given back."""

    def __init__(self, differ: Differ, epoch: int | None, block_size: int, shape: Shape) -> None:
        self._differ = differ
        self._shape = shape
        self._epoch = epoch * _SECOND if epoch is not None else None
        self._size = block_size
        self._free: list[memoryview] = []  # append and pop are atomic: blocks may come back from other threads
        self._buffer = self._fresh()
        self._used = 0

    def recycle(self, block: memoryview) -> None:
        """The block is not needed any more. Saves the page faults of a new one."""
        if len(block) == self._size:
            self._free.append(block)

    def __iter__(self) -> Iterator[memoryview]:
        reshape = self._shape.reshape
        for header in self._shape.first:
            yield from self._put(encode(header))
        for change in self._differ:
            header = self._clamped(change.header)
            head = encode(header if reshape is None else reshape(header))
            start = self._used + len(head)
            size = header.size if change.fd >= 0 else 0
            end = start + padded(size)
            if end < self._size:  # the usual case, without a generator
                self._buffer[self._used : start] = head
                if size:
                    if os.readv(change.fd, [self._buffer[start : start + size]]) != size:
                        raise _changed(header)
                    self._buffer[start + size : end] = _ZEROS[: end - start - size]
                self._used = end
                continue
            yield from self._put(head)
            if size:
                yield from self._put_file(change.fd, header)
        if self._shape.ends:
            yield from self._put(END)
        if self._used:
            yield self._buffer[: self._used]

    def _clamped(self, header: TarHeader) -> TarHeader:
        if self._epoch is None or header.mtime <= self._epoch:
            return header
        return replace(header, mtime=self._epoch)

    def _put(self, data: bytes) -> Iterator[memoryview]:
        rest = memoryview(data)
        while rest:
            step = min(len(rest), self._size - self._used)
            self._buffer[self._used : self._used + step] = rest[:step]
            rest = rest[step:]
            yield from self._advance(step)

    def _put_file(self, fd: int, header: TarHeader) -> Iterator[memoryview]:
        left = header.size
        while left:
            step = os.readv(fd, [self._buffer[self._used : min(self._used + left, self._size)]])
            if not step:
                raise _changed(header)
            left -= step
            yield from self._advance(step)
        yield from self._put(_ZEROS[: padded(header.size) - header.size])

    def _advance(self, step: int) -> Iterator[memoryview]:
        self._used += step
        if self._used == self._size:
            full, self._buffer, self._used = self._buffer, self._fresh(), 0
            yield full

    def _fresh(self) -> memoryview:
        try:
            return self._free.pop()
        except IndexError:
            return memoryview(mmap(-1, self._size))  # its pages come when they are written: most layers are small


def _changed(header: TarHeader) -> StoreError:
    return StoreError(f"{shown(header.name)} became shorter while its layer was read", hint="is the store shared?")
