"""Whiteouts that hide nothing, and a layer without them.

overlayfs merges the listings of directories that several layers have; one that a single layer has it lists as it is
(fs/overlayfs/readdir.c, ovl_dir_is_real). So a whiteout there is listed, as a name that nobody can open: a ghost. The
kernel makes no such whiteouts, but a layer that lies on others than it was made on has them (merge, diff), and an
archive may have any. Such a layer keeps its whiteouts, for it may lie elsewhere again; on this stack it is replaced by
a tree of hard links that has only those that hide something.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from buildengine.inroot import open_in_root
from cache.explicit import shown
from cache.merged import is_opaque, is_whiteout
from cache.overlay import OPAQUE_XATTR
from cache.treecopy import Attributes, Copier, attributes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Marks on layers/<id>, of what was unpacked: with ghosts where it belongs; with opaque directories.
GHOSTS, OPAQUE = "trusted.pybuild.ghosts", "trusted.pybuild.opaque"


def mark(layer: Path, name: str) -> None:
    """`layer` is the directory above the layer's own. Where it takes no such attribute there is no overlayfs either."""
    with suppress(OSError):
        os.setxattr(layer, name, b"")


def is_marked(layer: Path, name: str) -> bool:
    try:
        os.getxattr(layer, name)
    except OSError:
        return False
    return True


def write_without(layer: Path, below: Sequence[Path], target: Path) -> bool:
    """Write `layer` without its ghosts on `below` (topmost first) to `target`, which is made. False: it has none."""
    with ExitStack() as opened:
        source, *lowers = [_open(path, opened) for path in (layer, *below)]
        ghosts = _find(source, lowers)
        if ghosts:
            target.mkdir(mode=0o755)
            _write(source, _open(target, opened), ghosts)
    return bool(ghosts)


def _find(source: int, lowers: Sequence[int]) -> frozenset[str]:
    """The paths of the whiteouts that hide nothing."""
    found: set[str] = set()
    waiting = [("", False)]
    while waiting:
        path, opaque = waiting.pop()
        with ExitStack() as opened:
            here = _within(source, path, opened)
            opaque = opaque or bool(path and is_opaque(here))
            whiteouts = []
            for entry in opened.enter_context(os.scandir(here)):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{path}{entry.name}/", opaque))
                elif not entry.is_file(follow_symlinks=False) and is_whiteout(entry.stat(follow_symlinks=False)):
                    whiteouts.append(entry.name)
        if whiteouts:
            hidden = {} if opaque else shown(lowers, path.rstrip("/"))
            found.update(path + name for name in whiteouts if name not in hidden)
    return frozenset(found)


def _write(source: int, root: int, ghosts: frozenset[str]) -> None:
    copier = Copier(root)
    waiting, finished = [""], list[tuple[str, Attributes, bool]]()
    while waiting:
        path = waiting.pop()
        with ExitStack() as opened:
            here, there = _within(source, path, opened), _within(root, path, opened)
            finished.append((path, attributes(here), is_opaque(here)))
            for entry in opened.enter_context(os.scandir(here)):
                info, place = entry.stat(follow_symlinks=False), path + entry.name
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(entry.name, 0o700, dir_fd=there)
                    waiting.append(f"{place}/")
                elif place not in ghosts:
                    copier.link(entry.name, info, here, there, place)
    for path, found, opaque in finished:
        with ExitStack() as opened:
            fd = _within(root, path, opened)
            found.apply(fd)
            if opaque:
                os.setxattr(fd, OPAQUE_XATTR, b"y")


def _open(path: Path, opened: ExitStack) -> int:
    fd = os.open(path, _DIRECTORY)
    opened.callback(os.close, fd)
    return fd


def _within(root: int, path: str, opened: ExitStack) -> int:
    fd = open_in_root(root, path.rstrip("/"), os.O_RDONLY | os.O_DIRECTORY, follow=False)
    opened.callback(os.close, fd)
    return fd
