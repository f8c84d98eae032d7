"""A build context that is no directory of the user's: an archive on standard input, or nothing at all.

It becomes a directory in a layer that is never committed: the layer belongs to this process's lease, so the
directory goes when the build ends, or with the next command if this one is killed.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from buildengine.builder import BuildRequest
from cache.opened import Cache

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@asynccontextmanager
async def with_directories(cache: Cache, request: BuildRequest) -> AsyncIterator[BuildRequest]:
    """The request with a directory for its context, for this block."""
    if "context" in request.directories or "context" in request.options:
        yield request
        return
    layer = await cache.layers.create((), kind="source.local", description="build context from standard input")
    try:
        if request.context_archive is not None:
            await _unpack(request.context_archive, layer.directory)
        yield replace(request, directories=_directories(request, layer.directory))
    finally:
        await layer.discard()


def _directories(request: BuildRequest, context: Path) -> dict[str, Path]:
    """An archive holds its Dockerfile too, unless that came another way."""
    directories = {"context": context, **request.directories}
    if request.context_archive is not None:
        directories.setdefault("dockerfile", context)
    return directories


async def _unpack(read: Callable[[int], bytes], directory: Path) -> None:
    from worker.layers.unpack import unpack

    stream = cast(BinaryIO, io.BufferedReader(Pulled(read), 1 << 20))
    target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await unpack(stream, target, (), (os.geteuid(), os.getegid()))
    finally:
        os.close(target)


class Pulled(io.RawIOBase):
    """A raw stream on a function that reads at most so many bytes."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)
