"""Applies a layer archive: a tar stream becomes a directory in overlay upper format (cache/overlay.py).

Whiteouts become devices 0:0 and opaque xattrs. A whiteout speaks of the layers below only, wherever it stands in the
archive (OCI image-spec, layer.md, "Whiteouts"): what the same layer brings under that name stays. The directory must
be empty and the caller's own until it is committed; after an error its contents mean nothing.

This module must not know registries, blobs or the store.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from buildengine.digest import Digest
from buildengine.values import dataclass
from cache import ghosts
from cache.overlay import TreeMount
from worker.layers.decompress import decompress
from worker.layers.extract import Extraction
from worker.layers.failures import explained
from worker.layers.lowers import LowerStack
from worker.layers.names import OPAQUE, WHITEOUT, is_bookkeeping, parts_of, whiteout_target
from worker.layers.tar import TarHeader
from worker.layers.windows import plainly

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """`diff_id` is the digest of the uncompressed archive, `size` its length.

    `marks` (`cache.ghosts`) say that it removes what none of the layers below has, or hides whole directories.
    """

    diff_id: Digest
    size: int
    marks: tuple[str, ...] = ()


class LayerWriter:
    """Applies an archive that comes in chunks: `feed` them, then `finish`. Use as a context manager."""

    def __init__(self, directory: Path, lowers: TreeMount | None = None, *, windows: bool = False) -> None:
        self._stack = ExitStack()
        with self._stack:
            self._root = os.open(directory, _DIRECTORY)
            self._stack.callback(os.close, self._root)
            self._lowers = self._stack.enter_context(LowerStack(lowers.lowers if lowers is not None else ()))
            self._extraction = Extraction(
                self._root, self._lowers, fresh=True, left_out=self._is_marker, reshape=plainly() if windows else None
            )
            self._stack.callback(self._extraction.close)
            self._stack = self._stack.pop_all()
        self._root_is_opaque = False
        self._has_ghosts = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def marks(self) -> tuple[str, ...]:
        marks = {ghosts.GHOSTS: self._has_ghosts, ghosts.OPAQUE: self._extraction.parents.hides_any}
        return tuple(name for name, holds in marks.items() if holds)

    def feed(self, chunk: bytes) -> None:
        """Make what is complete with this chunk."""
        self._extraction.feed(chunk)

    def finish(self) -> None:
        """The archive has ended."""
        if self._root_is_opaque:
            with explained("cannot hide the lower layers"):
                self._hide_all()
        self._extraction.finish()

    def _is_marker(self, header: TarHeader) -> bool:
        """Whether the entry is a whiteout, which this then makes, or bookkeeping: no file of the tree."""
        parts = parts_of(header.name)
        if not parts or is_bookkeeping(parts):
            return bool(parts)
        base = parts[-1]
        if not base.startswith(WHITEOUT):
            return False
        parents = self._extraction.parents
        parent, _ = parents.of(header.name)
        if base != OPAQUE:
            self._whiteout(parent.fd, (*parent.path, whiteout_target(base)))
        elif parent.path:
            parents.hide_lowers(parent.path, parent.fd)
        else:
            self._root_is_opaque = True
        return True

    def _whiteout(self, parent: int, path: tuple[bytes, ...]) -> None:
        try:
            info = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(path[-1], stat.S_IFCHR, 0, dir_fd=parent)
            below = self._lowers.find(path)
            if below is None:
                self._has_ghosts = True
            else:
                below.close()
            return
        if stat.S_ISDIR(info.st_mode):
            self._extraction.parents.hide_lowers_of(parent, path)

    def _hide_all(self) -> None:
        """What an opaque root means; overlayfs itself does not look at the root's xattr."""
        for name in self._lowers.root_names():
            self._whiteout(self._root, (name,))


def apply(
    stream: BinaryIO,
    directory: Path,
    *,
    lowers: TreeMount | None = None,
    windows: bool = False,
    before_each: Callable[[], object] = lambda: None,
) -> Applied:
    """Apply the archive `stream`, compressed or not, to the empty `directory`.

    `lowers` are the layers below: parents that only they have are made alike, their symlinks are followed, and hard
    links may lead to their files. `windows` says that it is a Windows layer (windows.py). `before_each` megabyte may
    raise, to end it. Raises SourceError for a bad archive, StoreError when the disk is full.
    """
    plain, digest, size = decompress(stream), hashlib.sha256(), 0
    with LayerWriter(directory, lowers, windows=windows) as writer:
        while chunk := plain.read():
            before_each()
            digest.update(chunk)
            size += len(chunk)
            writer.feed(chunk)
        writer.finish()
    return Applied(diff_id=Digest.of_hex(digest.hexdigest()), size=size, marks=writer.marks)
