"""The files of a user's directory that a step has read, and how two such lists differ.

A list is written when a step that reads the directory has run: one entry a file, packed to some 13 bytes. It is made
of what the content key was made of: where that is known to the scan, nothing is read again.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from blake3 import blake3

from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.limits import HASH, offload
from buildengine.values import dataclass
from cache.contenthash import places, walk
from cache.hashtree import Tree
from cache.packed import pack, unpack
from cache.selection import Selector, selectors_key
from llb import ops
from llb.graph import Node
from solver.steps import Fate
from solver.vertex import Edge
from worker.explain.step import Build
from worker.localtree import LocalTree
from worker.ops import exec, file

Listing = Mapping[str, tuple[int, int, int, bytes]]
"""path -> mode, owner, group, digest of what it holds"""

MOST = 50_000  # files; of more there is no list
_HEAD = struct.Struct(">III")  # mode, uid, gid: what `cache.filehash.record` begins with
_DIGEST = 8


class _TooMany(Exception):
    pass


async def listing(tree: LocalTree, selectors: Sequence[Selector]) -> bytes | None:
    """What is selected, packed. None when it is too much, or is not any more what it was."""
    try:
        scan = await tree.scan()
        return await offload(_pack, scan, selectors, limiter=HASH)
    except (BuildError, OSError, _TooMany):
        return None


def list_name(op: ops.Op, index: int, content: str | None) -> str:
    """What the list of the files of an input is called; "" where an input does not count by its content.

    By their content, and by what was asked for: a content key leaves out what the selected file itself is called.
    """
    selectors = selected(op, index) if content is not None else ()
    if not selectors:
        return ""
    return blake3(f"{content}\n{selectors_key(selectors)}".encode("utf-8", "surrogateescape")).hexdigest(20)


async def new_lists(
    build: Build,
    nodes: Mapping[Digest, Node],
    results: Iterable[tuple[Edge, object]],
    is_known: Callable[[str], bool],
) -> dict[str, bytes]:
    """By name, the lists of what the steps that ran have read of directories, as far as they are not known."""
    trees = {edge.vertex.digest: result for edge, result in results if isinstance(result, LocalTree)}
    found: dict[str, bytes] = {}
    for step in build.steps:
        ran = step.fate in (Fate.RAN, Fate.FAILED)
        for index, one in enumerate(step.inputs if ran else ()):
            tree = trees.get(Digest(build.steps[one.step].vertex)) if one.step >= 0 else None
            if tree is None or not one.files or one.files in found or is_known(one.files):
                continue
            packed = await listing(tree, selected(nodes[Digest(step.vertex)].op, index))
            if packed is not None:
                found[one.files] = packed
    return found


def selected(op: ops.Op, index: int) -> tuple[Selector, ...]:
    match op.payload:
        case ops.FileOp() as payload:
            return file.selected(payload, index)
        case ops.ExecOp() as payload:
            return exec.selected(payload, index)
    return ()


def _pack(tree: Tree, selectors: Sequence[Selector]) -> bytes:
    return zlib.compress(pack(_found(tree, selectors)), 1)


def list_tree(tree: Tree, selectors: Sequence[Selector]) -> Listing | None:
    """What is selected. None for too much. Raises BuildError, OSError. Blocks."""
    try:
        return _found(tree, selectors)
    except _TooMany:
        return None


def _found(tree: Tree, selectors: Sequence[Selector]) -> dict[str, tuple[int, int, int, bytes]]:
    found: dict[str, tuple[int, int, int, bytes]] = {}
    for selector in selectors:
        for _, place in places(tree, selector):
            for path, record in walk(tree, place, selector.filter()):
                whole = f"{place.path}/{path}".strip("/")
                mode, uid, gid = _HEAD.unpack_from(record)
                found[whole] = (mode, uid, gid, blake3(memoryview(record)[_HEAD.size :]).digest(_DIGEST))
                if len(found) > MOST:
                    raise _TooMany
    return found


def read(data: bytes | None) -> Listing | None:
    try:
        return None if data is None else unpack(zlib.decompress(data))
    except zlib.error:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """`what` is added, removed, content, mode, owner or type; `note` says more where there is more to say."""

    path: str
    what: str
    note: str = ""


def changes(old: Listing, new: Listing) -> list[FileChange]:
    """In the order of their paths. Of a directory that comes or goes with all that is in it, the files."""
    found = []
    for path in sorted({*old, *new}):
        was, now = old.get(path), new.get(path)
        if was is None and now is not None:
            found.append(FileChange(path=path, what="added"))
        elif now is None and was is not None:
            found.append(FileChange(path=path, what="removed"))
        elif was is not None and now is not None and was != now:
            found.append(_change(path, was, now))
    filled = {change.path.rpartition("/")[0] for change in found}
    whole = [
        change
        for change in found
        if change.what not in ("added", "removed") or change.path not in filled or not _is_directory(change, old, new)
    ]
    return whole or found


def _is_directory(change: FileChange, old: Listing, new: Listing) -> bool:
    entry = new.get(change.path) or old.get(change.path)
    return entry is not None and stat.S_ISDIR(entry[0])


def _change(path: str, was: tuple[int, int, int, bytes], now: tuple[int, int, int, bytes]) -> FileChange:
    if stat.S_IFMT(was[0]) != stat.S_IFMT(now[0]):
        return FileChange(path=path, what="type", note=f"{_type(was[0])} -> {_type(now[0])}")
    mode = f"{stat.S_IMODE(was[0]):04o} -> {stat.S_IMODE(now[0]):04o}" if was[0] != now[0] else ""
    if was[3] != now[3]:
        return FileChange(path=path, what="content", note=f"and its mode, {mode}" if mode else "")
    if mode:
        return FileChange(path=path, what="mode", note=mode)
    return FileChange(path=path, what="owner", note=f"{was[1]}:{was[2]} -> {now[1]}:{now[2]}")


def _type(mode: int) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    return kinds.get(stat.S_IFMT(mode), "special file")
