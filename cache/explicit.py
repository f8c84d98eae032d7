"""A layer without opaque directories, so that it means the same on other layers than those it was made on.

An opaque directory hides whatever is below it. On the layers that it was made on, that is what the step removed; the
kernel also makes every new directory opaque, only to look less far (fs/overlayfs/dir.c, ovl_create_upper). On the
layers of another tree, as a merge puts them together, it would hide what nobody removed. Here each name that it hides
gets a whiteout, and the directory is like any other. BuildKit merges layers so too: util/overlay (Changes: an opaque
directory counts for what its own base has).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from buildengine.inroot import open_in_root
from cache.merged import is_opaque, is_whiteout
from cache.treecopy import Copier, attributes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def has_opaque(layer: Path) -> bool:
    return any(is_opaque(fd) for path, _, _, fd in os.fwalk(layer) if path != str(layer))


def write_explicit(layer: Path, below: Sequence[Path], target: Path) -> None:
    """Make `target`, an empty directory, the layer `layer`, of hard links. `below`: it lies on these, topmost first."""
    with ExitStack() as opened:
        source, root, *lowers = [_open(path, opened) for path in (layer, target, *below)]
        _Writer(source, lowers, root).run()


class _Writer:
    def __init__(self, source: int, lowers: Sequence[int], root: int) -> None:
        self._source = source
        self._lowers = lowers
        self._root = root
        self._copier = Copier(root)

    def run(self) -> None:
        waiting, finished = [("", False)], []
        while waiting:
            path, hides = waiting.pop()
            finished.append(path)
            waiting += self._directory(path, hides)
        for path in reversed(finished):  # what is made in a directory changes its time
            with ExitStack() as opened:
                here, there = (_within(root, path, opened) for root in (self._source, self._root))
                attributes(here).apply(there)

    def _directory(self, path: str, hides: bool) -> Iterator[tuple[str, bool]]:
        """Fill one directory; the ones in it, and whether they hide what is below them."""
        prefix = f"{path}/" if path else ""
        with ExitStack() as opened:
            here, there = (_within(root, path, opened) for root in (self._source, self._root))
            hides = hides or (bool(path) and is_opaque(here))
            names = set()
            with os.scandir(here) as entries:
                for entry in entries:
                    names.add(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(entry.name, 0o700, dir_fd=there)
                        yield prefix + entry.name, hides
                    else:
                        self._link(entry, here, there, prefix + entry.name)
            for name in shown(self._lowers, path) - names if hides else ():
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=there)

    def _link(self, entry: os.DirEntry[str], here: int, there: int, path: str) -> None:
        name = entry.name
        try:
            os.link(name, name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EXDEV, errno.EPERM):
                raise
            self._copier.copy(name, entry.stat(follow_symlinks=False), here, there, path)


def shown(layers: Sequence[int], path: str) -> set[str]:
    """The names in the directory `path` of a tree; `layers` are its layers' directories, topmost first."""
    found: set[str] = set()
    hidden: set[str] = set()
    for layer in layers:
        listed, is_last = _listed(layer, path)
        for name, info in listed.items():
            if name not in found | hidden:
                (hidden if is_whiteout(info) else found).add(name)
        if is_last:
            break
    return found


def _listed(layer: int, path: str) -> tuple[dict[str, os.stat_result], bool]:
    """What one layer has there, and whether that ends what lower ones could add."""
    ends = False
    with ExitStack() as opened:
        current = os.dup(layer)
        opened.callback(os.close, current)
        for name in path.split("/") if path else ():
            try:
                current = os.open(name, _DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                return {}, ends
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                return {}, True
            opened.callback(os.close, current)
            ends = ends or is_opaque(current)
        with os.scandir(current) as entries:
            return {entry.name: entry.stat(follow_symlinks=False) for entry in entries}, ends


def _open(path: Path, opened: ExitStack) -> int:
    fd = os.open(path, _DIRECTORY)
    opened.callback(os.close, fd)
    return fd


def _within(root: int, path: str, opened: ExitStack) -> int:
    fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
    opened.callback(os.close, fd)
    return fd
