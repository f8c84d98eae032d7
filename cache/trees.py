"""Whole trees on disk, made of a stack of layers: `trees/<key>`.

Two kinds. A *view* is read-only and made of hard links into the layers, so it costs directories only; it serves
as a lower directory where an overlay is not to be had, or would be too deep. It may be thrown away at any time
that nobody holds all its layers. A *working copy* shares nothing: it is written to, and then compared with what
it was (`cache.copying`).
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from blake3 import blake3

from cache import explicit, ghosts
from cache.db import Database
from cache.merged import Member, merged
from cache.removal import remove_tree
from cache.treecopy import Attributes, Copier, attributes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Place = Callable[[Member, int, str], None]


def stack_key(stack: Sequence[str]) -> str:
    return blake3("/".join(stack).encode()).hexdigest(20)


class Views:
    """The views of one store."""

    def __init__(self, root: Path, db: Database, owner: str) -> None:
        self._trees = root / "trees"
        self._layers = root / "layers"
        self._db = db
        self._owner = owner
        self._strays: dict[str, Path] = {}
        self._empty = self._trees / "empty"
        self._empty.mkdir(mode=0o755, exist_ok=True)

    @property
    def empty(self) -> Path:
        """A directory with nothing in it, for an overlay that needs one more."""
        return self._empty

    def layer(self, id: str) -> Path:
        return self._layers / id / "fs"

    def of(self, stack: Sequence[str]) -> Path:
        """The tree of `stack` as one directory. Blocks while it is made, the first time."""
        key = stack_key(stack)
        if not self._is_there(key):
            temporary = self._temporary()
            write_tree([self.layer(id) for id in reversed(stack)], temporary, link=True)
            self._publish(key, stack, temporary)
        return self._trees / key

    def stray(self, stack: Sequence[str], own: Sequence[str]) -> Path:
        """The topmost layer of `stack`, as overlayfs shows it rightly on the others. Blocks the first time.

        `own` is the stack of which it is to be nothing but the changes, if any (`cache.explicit`).
        """
        key = stack_key(("stray", *stack))
        if key not in self._strays:
            self._strays[key] = self._trees / key
            if not self._is_there(key) and not self._write_stray(key, stack, own):
                self._strays[key] = self.layer(stack[-1])
        return self._strays[key]

    def _write_stray(self, key: str, stack: Sequence[str], own: Sequence[str]) -> bool:
        """False: the layer does as it is."""
        layer, *below = [self.layer(id) for id in reversed(stack)]
        changes, shown = self._temporary(), self._temporary()
        try:
            if own:
                changes.mkdir(mode=0o755)
                if explicit.write_changes(layer, [self.layer(id) for id in reversed(own[:-1])], changes):
                    layer = changes
            if ghosts.write_without(layer, below, shown):
                self._publish(key, stack, shown)
            elif layer is changes:
                self._publish(key, stack, changes)
            else:
                return False
            return True
        finally:
            if changes.exists():
                remove_tree(changes)

    def _is_there(self, key: str) -> bool:
        return self._db.read(lambda c: c.execute("SELECT 1 FROM trees WHERE key = ?", (key,)).fetchone()) is not None

    def _temporary(self) -> Path:
        return self._trees / f"{self._owner}.{secrets.token_hex(8)}"

    def _publish(self, key: str, stack: Sequence[str], temporary: Path) -> None:
        if not self._db.write_nowait(lambda c: _publish(c, key, stack, temporary, self._trees / key)):
            remove_tree(temporary)  # another process was faster


def _publish(connection: sqlite3.Connection, key: str, stack: Sequence[str], temporary: Path, target: Path) -> bool:
    if connection.execute("SELECT 1 FROM trees WHERE key = ?", (key,)).fetchone():
        return False
    if target.exists():  # a view without a row is garbage
        os.rename(target, temporary.with_name(temporary.name + "-old"))
    os.rename(temporary, target)
    connection.execute("INSERT INTO trees (key, stack) VALUES (?, ?)", (key, json.dumps(list(stack))))
    return True


def write_tree(layers: Sequence[Path], target: Path, *, link: bool) -> None:
    """Make `target` the tree of `layers`, topmost first: of hard links to their files, or of copies."""
    with ExitStack() as opened:
        copy_tree([_open(layer, opened) for layer in layers], target, link=link)


def copy_tree(roots: Sequence[int], target: Path, *, link: bool = False) -> None:
    """The same, of open directories; one that is no layer is a stack of one."""
    target.mkdir(mode=0o755)
    with ExitStack() as opened:
        root = _open(target, opened)
        copier = Copier(root)

        def copy(member: Member, directory: int, path: str) -> None:
            copier.copy(member.name, member.info, member.directory, directory, path)

        def hard_link(member: Member, directory: int, path: str) -> None:
            copier.link(member.name, member.info, member.directory, directory, path)

        _write(roots, root, hard_link if link else copy)


def _write(roots: Sequence[int], root: int, place: _Place) -> None:
    finished: list[tuple[str, Attributes]] = []
    for directory in merged(roots):
        if directory.path:
            os.mkdir(directory.path, dir_fd=root)
        finished.append((directory.path, attributes(directory.source)))
        prefix = directory.path + "/" if directory.path else ""
        with open_directory(root, directory.path) as fd:
            for member in directory.members:
                place(member, fd, prefix + member.name)
    for path, found in finished:
        with open_directory(root, path) as fd:
            found.apply(fd)


@contextmanager
def open_directory(root: int, path: str) -> Iterator[int]:
    """A directory of a tree of ours, that is one whose directories on the way are known to be directories."""
    fd = os.open(path or ".", _DIRECTORY, dir_fd=root)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(directory: Path, opened: ExitStack) -> int:
    fd = os.open(directory, _DIRECTORY)
    opened.callback(os.close, fd)
    return fd
