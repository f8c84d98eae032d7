"""Looking up a path in a stack of layers without mounting it, as overlayfs would show it.

For the few entries of an archive that need to know what is below their layer: implied parents, and hard links to
files of a lower layer. This module must not know archives, and it never writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from buildengine.values import dataclass
from cache.overlay import OPAQUE_XATTR
from worker.layers.fileinfo import is_whiteout
from worker.layers.names import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file of a lower layer: `name` in the open directory `directory`, which whoever got this closes."""

    directory: int
    name: bytes
    info: os.stat_result

    def close(self) -> None:
        os.close(self.directory)


class LowerStack:
    """The layers below, topmost first. Use as a context manager."""

    def __init__(self, directories: Iterable[str] = ()) -> None:
        self._stack = ExitStack()
        self._roots: list[int] = []
        with self._stack:
            for directory in directories:
                root = os.open(directory, _DIRECTORY)
                self._stack.callback(os.close, root)
                self._roots.append(root)
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def root_names(self) -> frozenset[bytes]:
        """The names that the stack shows in its root."""
        shown, deleted = set[bytes](), set[bytes]()
        for root in self._roots:
            with os.scandir(root) as scan:
                for entry in scan:
                    name = os.fsencode(entry.name)
                    if name not in shown and name not in deleted:
                        (deleted if is_whiteout(entry.stat(follow_symlinks=False)) else shown).add(name)
        return frozenset(shown)

    def find(self, path: Path) -> Found | None:
        """What the stack shows at `path`, whose components are taken as they are: no symlink is followed."""
        for root in self._roots:
            found, hidden = _in_layer(root, path)
            if found is not None or hidden:
                return found
        return None


def _in_layer(root: int, path: Path) -> tuple[Found | None, bool]:
    """What one layer has at `path`, and whether it hides what the layers below it have there."""
    hides = False
    directory = os.dup(root)
    try:
        for depth, name in enumerate(path, 1):
            try:
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                return None, hides
            if is_whiteout(info):
                return None, True
            if depth == len(path):
                found = Found(directory=directory, name=name, info=info)
                directory = -1
                return found, True
            if not stat.S_ISDIR(info.st_mode):
                return None, True
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
            hides = hides or _is_opaque(directory)
        return None, hides
    finally:
        if directory >= 0:
            os.close(directory)


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
