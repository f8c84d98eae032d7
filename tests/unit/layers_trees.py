"""What the layer tests are made of: archives in a line, layers and blobs as bytes, and trees as values to compare."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.layers.compress import Check, Encoder
from worker.layers.tar import END, Kind, TarHeader, encode, padded
from worker.layers.tarreader import Data, TarReader
from worker.layers.write import layer_blocks

SECOND = 1_000_000_000
WHEN = 1_700_000_000 * SECOND
KEPT = ("security.capability", "user.", "trusted.overlay.opaque", "system.posix_acl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """All that a copy of a file should have. `same_as` is the first name of its inode, if that is another one."""

    mode: int
    owner: tuple[int, int]
    mtime: int | None
    contents: bytes
    device: int
    xattrs: tuple[tuple[str, bytes], ...]
    same_as: str | None


def describe(root: Path | str, *, times: bool = True, whole_seconds: bool = False) -> dict[str, Node]:
    """Every file below `root` by its relative path. Directories' times can be left out by `times=False`."""
    nodes: dict[str, Node] = {}
    first: dict[tuple[int, int], str] = {}
    base = os.fsencode(root)
    for directory, names, files in os.walk(base):
        names.sort()
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            key = os.fsdecode(os.path.relpath(path, base))
            info = os.lstat(path)
            node = _node(path, info, whole_seconds)
            inode = (info.st_dev, info.st_ino)
            same_as = first.setdefault(inode, key) if not stat.S_ISDIR(info.st_mode) else key
            nodes[key] = Node(**node, same_as=None if same_as == key else same_as)
            if not times and stat.S_ISDIR(info.st_mode):
                nodes[key] = Node(**(node | {"mtime": None}), same_as=None)
    return nodes


def _node(path: bytes, info: os.stat_result, whole_seconds: bool) -> dict[str, object]:
    contents = b""
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            contents = file.read()
    elif stat.S_ISLNK(info.st_mode):
        contents = os.readlink(path)
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(KEPT))
    return {
        "mode": info.st_mode,
        "owner": (info.st_uid, info.st_gid),
        "mtime": info.st_mtime_ns // 10**9 * 10**9 if whole_seconds else info.st_mtime_ns,
        "contents": contents,
        "device": info.st_rdev,
        "xattrs": tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
    }


def written(upper: Path, lower: Path | None = None, *, epoch: int | None = None) -> bytes:
    """The archive of the layer `upper` on the tree `lower`."""
    sink = io.BytesIO()
    fd = os.open(lower, os.O_RDONLY | os.O_DIRECTORY) if lower is not None else None
    try:
        with layer_blocks(upper, fd, epoch=epoch) as blocks:
            for block in blocks:
                sink.write(block)
                blocks.recycle(block)
    finally:
        if fd is not None:
            os.close(fd)
    return sink.getvalue()


def packed(data: bytes, made_by: Encoder) -> bytes:
    """The blob of `data`, its blocks one after the other."""
    blocks = [data[start : start + made_by.block_size] for start in range(0, len(data), made_by.block_size)]
    check = Check()
    for block in blocks:
        check.update(block)
    return b"".join([made_by.head, *map(made_by.block, blocks), made_by.tail(check.crc, check.size)])


def read_entries(chunks: Iterable[bytes]) -> Iterator[TarHeader | Data]:
    """The whole archive that `chunks` make up."""
    reader = TarReader()
    for chunk in chunks:
        yield from reader.feed(chunk)
    reader.close()


Entry = tuple[TarHeader, bytes]


def archive(*entries: Entry) -> bytes:
    """A tar archive of these entries."""
    return b"".join(encode(header) + data + bytes(padded(len(data)) - len(data)) for header, data in entries) + END


def file(name: bytes, data: bytes = b"", *, mode: int = 0o644, **fields: object) -> Entry:
    return TarHeader(name=name, kind=Kind.FILE, size=len(data), mode=mode, **_timed(fields)), data


def directory(name: bytes, *, mode: int = 0o755, **fields: object) -> Entry:
    return TarHeader(name=name + b"/", kind=Kind.DIRECTORY, mode=mode, **_timed(fields)), b""


def symlink(name: bytes, target: bytes) -> Entry:
    return TarHeader(name=name, kind=Kind.SYMLINK, linkname=target, mode=0o777, mtime=WHEN), b""


def link(name: bytes, target: bytes) -> Entry:
    return TarHeader(name=name, kind=Kind.LINK, linkname=target, mtime=WHEN), b""


def whiteout(name: bytes) -> Entry:
    head, slash, base = name.rpartition(b"/")
    return file(head + slash + b".wh." + base)


def opaque(name: bytes) -> Entry:
    return file((name + b"/" if name else b"") + b".wh..wh..opq")


def _timed(fields: dict[str, object]) -> dict[str, object]:
    return {"mtime": WHEN} | fields
