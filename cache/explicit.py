"""A layer as nothing but its changes, so that it means the same on other layers than those it was made on.

A step leaves more than it changed in overlayfs's upper directory. What was only on the way to a change, or was touched
and is as before, is there too. An opaque directory hides whatever is below it: on the layers that the step saw, that is
what it removed; the kernel also makes every new directory opaque, only to look less far (fs/overlayfs/dir.c,
ovl_create_upper). On the layers of another tree, as a merge puts them together, all this would replace and hide what
nobody changed. Here what is as it was is left out, what was removed has whiteouts, and no directory is opaque.

Facts: BuildKit snapshot/diffapply_linux.go, util/overlay (Changes, sameDirent: what counts as changed).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from buildengine.inroot import open_in_root
from buildengine.values import dataclass
from cache.merged import is_opaque, is_whiteout
from cache.treecopy import Attributes, Copier, attributes, xattrs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 10**9
_CHUNK = 1 << 20


def write_changes(layer: Path, below: Sequence[Path], target: Path) -> bool:
    """Write the changes that `layer` makes to what it lies on (`below`, topmost first) into the empty `target`.

    They are hard links. False: the layer is nothing but its changes already.
    """
    with ExitStack() as opened:
        source, root, *lowers = [_open(path, opened) for path in (layer, target, *below)]
        return _Writer(source, lowers, root).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file of the tree below: which of its layers has it."""

    layer: int
    info: os.stat_result


class _Writer:
    def __init__(self, source: int, lowers: Sequence[int], root: int) -> None:
        self._source = source
        self._lowers = lowers
        self._root = root
        self._copier = Copier(root)
        self._left_out = False

    def run(self) -> bool:
        waiting: list[tuple[str, Found | None, bool]] = [("", None, False)]
        finished: list[tuple[str, Attributes, Found | None]] = []
        while waiting:
            path, before, hides = waiting.pop()
            with ExitStack() as opened:
                here = _within(self._source, path, opened)
                finished.append((path, attributes(here), before))
                waiting += self._directory(path, here, hides)
        for path, found, before in reversed(finished):  # what is made in a directory changes its time
            if not (before is not None and self._is_same_directory(path, found, before) and self._removed(path)):
                with ExitStack() as opened:
                    found.apply(_within(self._root, path, opened))
        return self._left_out

    def _directory(self, path: str, here: int, hides: bool) -> Iterator[tuple[str, Found | None, bool]]:
        """Fill one directory; the ones in it, with what is below them, and whether they hide that."""
        prefix = f"{path}/" if path else ""
        if path and is_opaque(here):
            hides = self._left_out = True
        below = shown(self._lowers, path)
        names = set()
        with ExitStack() as opened:
            there = _within(self._root, path, opened)
            for entry in opened.enter_context(os.scandir(here)):
                names.add(entry.name)
                before = below.get(entry.name)
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(entry.name, 0o700, dir_fd=there)
                    yield prefix + entry.name, before, hides
                elif self._is_change(prefix + entry.name, info, before):
                    self._copier.link(entry.name, info, here, there, prefix + entry.name)
                else:
                    self._left_out = True
            for name in below.keys() - names if hides else ():
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=there)

    def _is_change(self, path: str, info: os.stat_result, before: Found | None) -> bool:
        if before is None or _identity(info) != _identity(before.info):
            return True  # and a whiteout is always one: of a difference, what it was made on is known in part only
        with ExitStack() as opened:
            directory, _, name = path.rpartition("/")
            roots = (self._source, self._lowers[before.layer])
            now, then = (f"/proc/self/fd/{_within(root, directory, opened)}/{name}" for root in roots)
            return xattrs(now) != xattrs(then) or not _is_same_data(now, then, info)

    def _is_same_directory(self, path: str, found: Attributes, before: Found) -> bool:
        if not stat.S_ISDIR(before.info.st_mode):
            return False
        with ExitStack() as opened:
            other = attributes(_within(self._lowers[before.layer], path, opened))
        return (found.mode, found.uid, found.gid, found.xattrs) == (other.mode, other.uid, other.gid, other.xattrs)

    def _removed(self, path: str) -> bool:
        """A directory that was only on the way; True when nothing in it has changed."""
        try:
            os.rmdir(path, dir_fd=self._root)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False
        self._left_out = True
        return True


def _identity(info: os.stat_result) -> tuple[int, ...]:
    return info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_size, info.st_mtime_ns


def _is_same_data(now: str, then: str, info: os.stat_result) -> bool:
    """Of files with the same times: those of an archive have whole seconds, and then the contents count."""
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(now) == os.readlink(then)
    if not stat.S_ISREG(info.st_mode) or info.st_mtime_ns % _SECOND:
        return True
    with open(now, "rb") as one, open(then, "rb") as other:
        while True:
            data = one.read(_CHUNK)
            if data != other.read(_CHUNK):
                return False
            if not data:
                return True


def shown(layers: Sequence[int], path: str) -> dict[str, Found]:
    """What is in the directory `path` of a tree; `layers` are its layers' directories, topmost first."""
    found: dict[str, Found] = {}
    hidden: set[str] = set()
    for number, layer in enumerate(layers):
        listed, is_last = _listed(layer, path)
        for name, info in listed.items():
            if is_whiteout(info):
                hidden.add(name)
            elif name not in hidden:
                found.setdefault(name, Found(layer=number, info=info))
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
