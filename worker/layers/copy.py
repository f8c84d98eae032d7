"""Copies a tree of files from one open root to another, a batch of directories at a time.

It goes down directory by directory: each is opened from its root by a path without symlinks, its files are copied
(copyfiles.py), and its own attributes are set when it is full. Batches may run in several threads at once: they share
only dictionaries and sets whose single operations are atomic.

This module must not know Dockerfiles, LLB or how the sources of a copy are chosen.
"""

from __future__ import annotations

import os
import stat
from dataclasses import field

from buildengine.errors import ContextError, UserError
from buildengine.values import dataclass
from worker.layers import xattrs
from worker.layers.copyfiles import FileCopier, Opened, Place, changed
from worker.layers.copyrules import CopiedFile, Rules
from worker.layers.names import Path, shown
from worker.layers.rootpath import lstat, open_directory

_BATCH = 200  # entries after which a batch hands back what is left
_SAFE_MODE = 0o700


@dataclass(slots=True, kw_only=True, eq=False)
class Directory:
    """A directory to be copied; `pattern` is its path as patterns see it, `parent` the one above it in the copy.

    `made`: the target is there. `existed`: it was there before, and as only something below it is copied, it keeps
    what it has but its mode. `merged`: it is the target of the whole copy and keeps all but its time.
    """

    source: Path
    target: Path
    info: os.stat_result
    pattern: str = ""
    included: int = 0
    excluded: int = 0
    parent: Directory | None = None
    made: bool = False
    existed: bool = False
    merged: bool = False


_Place = tuple[Path, bytes]


@dataclass(slots=True, kw_only=True)
class Batch:
    """What has been done, and what is left: directories to go on with, links to make, directories to dress again."""

    files: list[CopiedFile] = field(default_factory=list)
    rest: list[Directory] = field(default_factory=list)
    links: list[tuple[Place, Place]] = field(default_factory=list)
    late: list[Directory] = field(default_factory=list)

    def add(self, other: Batch) -> None:
        """Everything of both but the rest."""
        self.files += other.files
        self.links += other.links
        self.late += other.late


class Copier:
    """Copies below two open roots. `required` are source paths of which each must lead to something copied."""

    def __init__(self, source: int, target: int, rules: Rules, required: tuple[bytes, ...] = ()) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._files = FileCopier(target, rules)
        self._missing = set(required)

    def file(self, source: Path, target: Path, info: os.stat_result) -> Batch:
        """Copy one file that is no directory; the directory of the target exists."""
        at = Opened(source=open_directory(self._source, source[:-1]), source_path=source[:-1], target_path=target[:-1])
        try:
            self._files.open_target(at)
            self._files.copy(at, source[-1], stat.S_IFMT(info.st_mode), target[-1])
        finally:
            at.close()
        self._found(source)
        return Batch(files=at.files, links=at.links)

    def top(self, source: Path, target: Path, info: os.stat_result) -> Directory:
        """Begin with a directory: its target is made, or is merged with what is there."""
        self._found(source)
        directory = Directory(source=source, target=target, info=info, made=True, merged=True)
        if target:
            parent = open_directory(self._target, target[:-1])
            try:
                directory.merged = not self._make(parent, target)
            finally:
                os.close(parent)
        return directory

    def batch(self, directories: list[Directory]) -> Batch:
        """Copy these directories and some of what is below them."""
        batch, done = Batch(rest=directories), 0
        while batch.rest and done < _BATCH:
            done += self._fill(batch.rest.pop(), batch)
        return batch

    def finish(self, batch: Batch) -> None:
        """After all batches: what had to wait for other directories. Raises ContextError for a required path."""
        for here, there in batch.links:
            self._files.link(here, there)
        for directory in {id(directory): directory for directory in batch.late}.values():
            at = self._open(directory)
            try:
                self._files.open_target(at)
                self._dress(at, directory)
            finally:
                at.close()
        for path in sorted(self._missing):
            raise ContextError(f"/{shown(path)} not found", hint="the path, or a pattern in it, matches nothing")

    # --- one directory ----------------------------------------------------------------------------------

    def _open(self, directory: Directory) -> Opened:
        source = open_directory(self._source, directory.source)
        return Opened(source=source, source_path=directory.source, target_path=directory.target)

    def _fill(self, directory: Directory, batch: Batch) -> int:
        at = self._open(directory)
        try:
            if directory.made:
                self._files.open_target(at)
            else:
                there = lstat(self._target, directory.target)
                directory.existed = there is not None and stat.S_ISDIR(there.st_mode)
            entries = self._list(at.source, directory.source)
            for name, kind in entries:
                self._select(at, directory, name, kind, batch)
            if at.target >= 0:
                self._dress(at, directory)
        finally:
            at.close()
        batch.files += at.files
        if at.links:
            batch.links += at.links
            batch.late.append(directory)
        return len(entries) + 1

    def _list(self, fd: int, path: Path) -> list[tuple[bytes, int]]:
        visible = self._rules.visible
        seen = visible.names(os.fsdecode(b"/".join(path))) if visible is not None else None
        with os.scandir(fd) as scan:
            found = sorted((os.fsencode(e.name), _type(e)) for e in scan if seen is None or e.name in seen)
        if seen is not None and len(found) != len(seen):
            there = {name for name, _ in found}
            raise changed(path, next(name for name in map(os.fsencode, seen) if name not in there))
        return found

    def _select(self, at: Opened, above: Directory, name: bytes, kind: int, batch: Batch) -> None:
        """Apply the patterns to one entry, and copy it if they let it through."""
        rules, path, included, excluded = self._rules, "", 0, 0
        if rules.include is not None or rules.exclude is not None:
            path = f"{above.pattern}/{os.fsdecode(name)}" if above.pattern else os.fsdecode(name)
            included = rules.include.step(path, above.included) if rules.include is not None else 0
            excluded = rules.exclude.step(path, above.excluded) if rules.exclude is not None else 0
        taken = not excluded & 1 and (rules.include is None or bool(included & 1))
        if taken:
            self._take(at, above, name, batch)
        if kind != stat.S_IFDIR:
            if taken:
                self._files.copy(at, name, kind, name)
            return
        if not taken and _is_closed(rules, path, included, excluded):
            return
        info = os.stat(name, dir_fd=at.source, follow_symlinks=False)
        self._files.check_current(at, name, info)
        below = Directory(
            source=(*above.source, name),
            target=(*above.target, name),
            info=info,
            pattern=path,
            included=included,
            excluded=excluded,
            parent=above,
            made=taken,
        )
        if taken:
            self._make(at.target, below.target)
        batch.rest.append(below)

    def _take(self, at: Opened, above: Directory, name: bytes, batch: Batch) -> None:
        """An entry will be copied: its directory must be there."""
        if at.target < 0:
            self._make_late(above, batch)
            self._files.open_target(at)
        if self._missing:
            self._found((*above.source, name))

    def _found(self, path: Path) -> None:
        for depth in range(1, len(path) + 1):
            self._missing.discard(b"/".join(path[:depth]))

    def _make(self, parent: int, path: Path) -> bool:
        """Make the directory; False when it is there already."""
        name = path[-1]
        try:
            os.mkdir(name, _SAFE_MODE, dir_fd=parent)
            return True
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return False
        if not self._rules.replace:
            raise UserError(f"cannot copy a directory to /{shown(b'/'.join(path))}, which is not one")
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, _SAFE_MODE, dir_fd=parent)
        return True

    def _make_late(self, directory: Directory, batch: Batch) -> None:
        """Make a directory that patterns had not let through, now that something below it is copied."""
        if directory.made:
            return
        assert directory.parent is not None, "the top is always made"
        self._make_late(directory.parent, batch)
        parent = open_directory(self._target, directory.target[:-1])
        try:
            self._make(parent, directory.target)
        finally:
            os.close(parent)
        directory.made = True
        batch.late += (directory.parent, directory)

    def _dress(self, at: Opened, directory: Directory) -> None:
        info, rules, fd = directory.info, self._rules, at.target
        if directory.existed:
            os.fchmod(fd, stat.S_IMODE(info.st_mode))
            return
        if not directory.merged:
            os.fchown(fd, *rules.owner_of(info))
            os.fchmod(fd, rules.mode_of(info))
            xattrs.write(fd, xattrs.read(at.source))
            self._files.check_directory(at)
        time = rules.time_of(info)
        os.utime(fd, ns=(time, time))


def _is_closed(rules: Rules, path: str, included: int, excluded: int) -> bool:
    """Whether nothing below a directory that was not taken can be taken."""
    if excluded & 1 and rules.exclude is not None and rules.exclude.can_prune(path):
        return True
    return rules.include is not None and not included & 1 and not rules.include.reaches(path)


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else 0
