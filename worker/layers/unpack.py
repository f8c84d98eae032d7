"""ADD's unpacking: an archive in the source becomes a tree in the target. Whiteouts mean nothing here.

A file is an archive if, after decompression by its first bytes, it begins with a valid tar header; else ADD copies it.
This module must not know LLB.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import BinaryIO

from buildengine.errors import SourceError
from buildengine.inroot import open_in_root
from buildengine.limits import DISK, offload
from worker.layers.decompress import Decompressed, decompress
from worker.layers.extract import Extraction
from worker.layers.lowers import LowerStack
from worker.layers.names import Path
from worker.layers.pipeline import pump
from worker.layers.rootpath import open_directory
from worker.layers.tar import BLOCK, decode

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


def open_archive(root: int, path: str) -> BinaryIO | None:
    """The file at `path`, symlinks followed inside the root, if it is an archive."""
    try:
        fd = open_in_root(root, path, _FLAGS)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    file = os.fdopen(fd, "rb", buffering=0)
    with ExitStack() as stack:
        stack.callback(file.close)
        if not _begins_with_header(file):
            return None
        file.seek(0)
        stack.pop_all()
    return file


def _begins_with_header(file: BinaryIO) -> bool:
    try:
        plain, head = decompress(file), b""
        while len(head) < BLOCK:
            piece = plain.read(BLOCK - len(head))
            if not piece:
                return False
            head += piece
        return decode(head[:BLOCK]) is not None
    except SourceError:
        return False


@contextmanager
def extraction_into(target: int, directory: Path, owner: tuple[int, int] | None) -> Iterator[Extraction]:
    """What extracts an archive into an existing directory, where others may have files already."""
    root = open_directory(target, directory)
    try:
        with LowerStack() as nothing, closing(Extraction(root, nothing, fresh=False, owner=owner)) as extraction:
            yield extraction
    finally:
        os.close(root)


async def unpack(stream: BinaryIO, target: int, directory: Path, owner: tuple[int, int] | None) -> None:
    """Extract the archive `stream` into the existing directory; `owner` replaces every owner in it.

    Raises SourceError when the archive is damaged.
    """
    plain: Decompressed = await offload(decompress, stream, limiter=DISK)
    with extraction_into(target, directory, owner) as extraction:
        await pump(plain.read, extraction.feed)
        await offload(extraction.finish, limiter=DISK)
