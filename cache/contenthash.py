"""Content digests: what a selection of a tree holds, whatever it is called and however it came to be.

The selected entries, in a fixed order, as (path relative to what was selected, record), through blake3. So the
name of a selected file or directory itself does not count, those below it do. Digests are remembered in the
database for the stack of layers that makes the tree, and so are the digests of its files, by inode and ctime:
layers never change, and a file of a layer that two stacks share is read once.

A tree comes from the caller, as an open directory (mounting is not for this package) or as a scan of the user's
own directory (`cache.localscan`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from blake3 import blake3

from buildengine.digest import Digest
from buildengine.errors import MissingPath
from buildengine.limits import HASH, offload
from cache.db import Database
from cache.fdtree import FdTree, FileDigests
from cache.hashtree import Place, Tree
from cache.packed import pack, unpack
from cache.selection import Filter, Selector, Verdict, clean, ordered, selectors_key
from cache.trees import stack_key
from llb.globs import has_wildcard, name_pattern

_FEW = 64 << 10  # bytes of packed digests of files that are written in no time


class ContentHashes:
    """Content digests of stacks of layers, remembered."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def known(self, stack: Sequence[str], selectors: Sequence[Selector] = (Selector(),)) -> Digest | None:
        """The digest, if it was computed before: then nobody needs to mount anything."""
        query = "SELECT digest FROM content_digests WHERE stack = ? AND selectors = ?"
        row = self._db.read(lambda c: c.execute(query, (stack_key(stack), selectors_key(selectors))).fetchone())
        return None if row is None else Digest(row[0])

    async def digest(self, stack: Sequence[str], tree_fd: int, selectors: Sequence[Selector] = (Selector(),)) -> Digest:
        """The digest of `selectors` in the tree of `stack`, which the caller has opened as `tree_fd`."""
        digest = self.known(stack, selectors)
        if digest is not None:
            return digest
        files = FileDigests(self._load(stack))
        digest = await offload(content_digest, FdTree(tree_fd, files), selectors, limiter=HASH)
        if stack:
            await self._save(stack, selectors, digest, files)
        return digest

    def tree(self, stack: Sequence[str], tree_fd: int) -> Tree:
        """The tree of `stack`, to be looked at, with what is remembered of its files."""
        return FdTree(tree_fd, FileDigests(self._load(stack)))

    def _load(self, stack: Sequence[str]) -> dict[bytes, bytes]:
        query = "SELECT data FROM file_digests WHERE layer = ?"
        rows = self._db.read(lambda c: [c.execute(query, (layer,)).fetchone() for layer in stack])
        known: dict[bytes, bytes] = {}
        for row in rows:
            known.update((unpack(row[0]) or {}) if row else {})
        return known

    async def _save(
        self, stack: Sequence[str], selectors: Sequence[Selector], digest: Digest, files: FileDigests
    ) -> None:
        row = (stack_key(stack), selectors_key(selectors), stack[-1], digest)
        data = pack({**self._load(stack[-1:]), **files.new}) if files.new else None
        write = self._db.write if data and len(data) > _FEW else self._db.write_soon
        await write(
            lambda c: (
                c.execute(
                    "INSERT OR REPLACE INTO content_digests (stack, selectors, layer, digest) VALUES (?, ?, ?, ?)", row
                ),
                data
                and c.execute("INSERT OR REPLACE INTO file_digests (layer, data) VALUES (?, ?)", (stack[-1], data)),
            )
        )


def content_digest(tree: Tree | int, selectors: Sequence[Selector] = (Selector(),)) -> Digest:
    """The digest of a selection. Raises ContextError for a path that is not there, OSError. Blocks."""
    if isinstance(tree, int):
        tree = FdTree(tree)
    whole = blake3(b"pybuild.content.v1\0")
    for selector in ordered(selectors):
        whole.update(_selection(tree, selector))
    return Digest.of_hex(whole.hexdigest(), "blake3")


def _selection(tree: Tree, selector: Selector) -> bytes:
    digest = blake3()
    selected: list[str] = []
    for name, place in places(tree, selector):
        if place.is_link and selector.follow_links:
            target = _found(tree, place.path, follow=True)
            digest.update(_frame(name) + _whole(tree, target))
            selected.append(clean(name))
            continue
        for path, record in walk(tree, place, selector.filter()):
            full = f"{name}/{path}" if name and path else name or path
            digest.update(_frame(full) + record)
            if selector.required:
                selected.append(clean(f"{'' if selector.is_pattern else selector.path}/{full}"))
    for path in selector.required:
        if not any(found.startswith(clean(path)) for found in selected):
            raise _not_found(path)
    return digest.digest()


def _whole(tree: Tree, place: Place) -> bytes:
    digest = blake3()
    for path, record in walk(tree, place, None):
        digest.update(_frame(path) + record)
    return digest.digest()


def places(tree: Tree, selector: Selector) -> list[tuple[str, Place]]:
    """What is selected, each with the name under which it counts: of a wildcard's matches the names matter."""
    if selector.is_pattern:
        return list(_glob(tree, clean(selector.path)))
    return [("", _found(tree, clean(selector.path), follow=selector.follow_links))]


def _found(tree: Tree, path: str, *, follow: bool) -> Place:
    place = tree.resolve(path, follow=follow)
    if place is None:
        raise _not_found(path, _dead_link(tree, path))
    return place


def _dead_link(tree: Tree, path: str) -> str:
    """The symlink on the way that leads to nothing inside the tree; "" when there is none."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        prefix = "/" + "/".join(parts[:depth])
        if tree.resolve(prefix, follow=True) is None:
            return prefix if tree.resolve(prefix, follow=False) is not None else ""
    return ""


def _glob(tree: Tree, pattern: str) -> Iterator[tuple[str, Place]]:
    """As the copy itself does: symlinks are followed before the first wildcard and not after it."""
    parts = pattern.strip("/").split("/")
    first = next(i for i, part in enumerate(parts) if has_wildcard(part))
    start = tree.resolve("/" + "/".join(parts[:first]), follow=True)
    if start is None or not start.is_dir:
        return
    found = [("", start.path)]
    for depth, part in enumerate(parts[first:], first + 1):
        matches = name_pattern(part).fullmatch
        last = depth == len(parts)
        matched = []
        for name, path in found:
            with tree.open(path) as directory:
                names = [child for child, is_dir in directory.entries if (last or is_dir) and matches(child)]
            matched += [(f"{name}/{child}".lstrip("/"), f"{path}/{child}".lstrip("/")) for child in names]
        found = matched
    for name, path in found:
        yield name, _found(tree, path, follow=False)


def walk(tree: Tree, place: Place, keep: Filter | None) -> Iterator[tuple[str, bytes]]:
    """(path below `place`, record) of everything kept; a directory before what is in it."""
    yield "", tree.record(place.path)
    if not place.is_dir:
        return
    unsure: dict[str, bytes] = {}  # directories that count if something below them does
    waiting = [""]
    while waiting:
        below = waiting.pop()
        prefix = below + "/" if below else ""
        entered = []
        with tree.open(f"{place.path}/{below}".strip("/")) as directory:
            for name, is_dir in directory.entries:
                path = prefix + name
                verdict = Verdict.KEEP if keep is None else keep(path, is_dir)
                if is_dir and verdict is not Verdict.PRUNE:
                    entered.append(path)
                if verdict is Verdict.KEEP:
                    if unsure:
                        yield from _parents(path, unsure)
                    yield path, directory.record(name)
                elif is_dir and verdict is Verdict.SKIP:
                    unsure[path] = directory.record(name)
        waiting += reversed(entered)


def _parents(path: str, unsure: dict[str, bytes]) -> list[tuple[str, bytes]]:
    found = []
    parent = path.rpartition("/")[0]
    while parent in unsure:
        found.append((parent, unsure.pop(parent)))
        parent = parent.rpartition("/")[0]
    return found[::-1]


def _frame(path: str) -> bytes:
    raw = os.fsencode(path)
    return len(raw).to_bytes(4, "big") + raw


def _not_found(path: str, link: str = "") -> MissingPath:
    hint = "check the spelling, and that no ignore file excludes it"
    if link:
        hint = f"{link} is a symbolic link, and what it leads to is not in there: no link leads out"
    return MissingPath(f"{path!r}: not found", path=path, hint=hint)
