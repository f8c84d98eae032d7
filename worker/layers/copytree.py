"""LLB's copy action, as BuildKit's file backend and fsutil do it: from one open root to another.

Where the files go: a directory's contents into `dest` with `dir_copy_contents`, else the directory itself, inside
`dest` if that exists; a file into `dest` if that is a directory. What is made on the way is root's, or `owner`'s; what
exists keeps its owner and mode, the target of the whole copy gets the source's time.

This module must not know where the roots come from, nor names of users: owners are ids here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import trio

from buildengine.errors import ContextError, SourceError, UserError
from buildengine.limits import DISK, offload
from buildengine.values import dataclass
from llb.ops import CopyAction
from llb.paths import destination
from worker.layers.copy import Batch, Copier, Directory
from worker.layers.copyrules import CopiedFile, Reuse, Rules, Visible, is_visible
from worker.layers.failures import explained
from worker.layers.names import Path
from worker.layers.outcome import one_error
from worker.layers.permissions import parse_mode
from worker.layers.rootpath import Ownership, lstat, make_directories, resolve, set_times
from worker.layers.select import PathMatcher, matches

_WORKERS = min(4, len(os.sched_getaffinity(0)))
_DEFAULT_MODE = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """The regular files that were copied, with their digests, when those were asked for."""

    files: tuple[CopiedFile, ...] = ()


async def copy(
    source: int,
    target: int,
    action: CopyAction,
    *,
    owner: tuple[int, int] | None = None,
    source_owner: tuple[int, int] | None = None,
    include: PathMatcher | None = None,
    exclude: PathMatcher | None = None,
    visible: Visible | None = None,
    reuse: Reuse | None = None,
    digests: bool = False,
    unprivileged: bool = False,
) -> Copied:
    """Do `action` from the open root `source` to the open root `target`.

    `owner` is the action's owner as ids; `source_owner` whose the source's files are, whatever their inodes say (an
    archive's own owners stay); `include` and `exclude` are the action's patterns, compiled; the rest is in `Rules`.
    Raises UserError or ContextError when the action cannot be done as it is written, SourceError for a damaged archive.
    """
    rules = Rules(
        owner=source_owner if owner is None else owner,
        archive_owner=owner,
        mode=action.mode & 0o7777 if action.mode >= 0 and not action.mode_str else None,
        mode_change=parse_mode(action.mode_str) if action.mode_str else None,
        timestamp=action.timestamp if action.timestamp >= 0 else None,
        replace=action.always_replace_existing_dest_paths,
        include=include,
        exclude=exclude,
        visible=visible,
        reuse=reuse,
        digests=digests,
        unprivileged=unprivileged,
    )
    files: list[CopiedFile] = []
    for job in await offload(_jobs, source, target, action, rules, limiter=DISK):
        await job.run()
        files += job.done.files
    return Copied(files=tuple(files))


def _jobs(source: int, target: int, action: CopyAction, rules: Rules) -> list[_Copy]:
    """A copy for each path that `src` means, the first of them begun: there is seldom another, and a change of threads
    takes as long as a small file."""
    jobs = [_Copy(source, target, action, rules, path) for path in _sources(source, target, action, rules.visible)]
    for job in jobs[:1]:
        job.begin()
    return jobs


def _sources(source: int, target: int, action: CopyAction, visible: Visible | None) -> tuple[str, ...]:
    """The paths that the action's `src` means, after checking that its `dest` can be."""
    with explained(f"cannot copy {action.src}"):
        if not action.create_dest_path:
            path = resolve(target, action.dest)
            if path and lstat(target, path[:-1]) is None:
                raise UserError(
                    f"cannot copy to {action.dest}: its directory does not exist",
                    hint="make it first, or let copy make it",
                )
        paths = matches(
            source, destination("/", action.src), wildcards=action.allow_wildcard, follow=action.follow_symlink
        )
        if visible is not None and action.allow_wildcard:
            paths = tuple(path for path in paths if is_visible(visible, resolve(source, path, follow_last=False)))
    if not paths and not action.allow_empty_wildcard:
        raise ContextError(f"{action.src} not found", hint="no file matches it")
    return paths


class _Copy:
    """One source of the action."""

    def __init__(self, source: int, target: int, action: CopyAction, rules: Rules, path: str) -> None:
        self._source = source
        self._target = target
        self._action = action
        self._rules = rules
        self._path = path
        self._dest = destination("/", action.dest)
        self._given = Ownership(owner=rules.owner, timestamp=rules.timestamp)
        self._mode = _DEFAULT_MODE if rules.mode is None else rules.mode & 0o777
        self._made: list[Path] = []
        required = tuple(os.fsencode(path.strip("/")) for path in action.required_paths)
        self._copier = Copier(source, target, rules, required)
        self._doing = f"cannot copy {path} to {action.dest}"
        self._begun = False
        self._unpacking: tuple[BinaryIO, Path] | None = None
        self.done = Batch()

    async def run(self) -> None:
        if not self._begun:
            await offload(self.begin, limiter=DISK)
        if self._unpacking is not None:
            stream, directory = self._unpacking
            with stream, self._named():
                from worker.layers.unpack import unpack

                await unpack(stream, self._target, directory, self._rules.archive_owner)
        elif self.done.rest:
            await _Workers(self._batch, self.done).run()
            await offload(self._finish, limiter=DISK)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What is wrong with an archive is said of the file that it is."""
        try:
            yield
        except SourceError as error:
            raise SourceError(f"cannot unpack {self._path}: {error.message}", hint=error.hint) from error

    def _archive(self) -> BinaryIO | None:
        from worker.layers.unpack import open_archive

        return open_archive(self._source, self._path)

    def begin(self) -> None:
        """All of a small copy, the beginning of a large one, or the archive to be unpacked and where. Blocks."""
        self._begun = True
        with explained(self._doing):
            archive = self._archive() if self._action.attempt_unpack else None
            if archive is not None:
                directory = resolve(self._target, self._dest)
                make_directories(self._target, directory, _DEFAULT_MODE, self._given)
                self._unpacking = archive, directory
                return
            first = self._first()
            if first is not None:
                batch = self._copier.batch([first])
                self.done.add(batch)
                self.done.rest = batch.rest
        if not self.done.rest:
            self._finish()

    def _first(self) -> Directory | None:
        """Copy the source if it is a file; else its directory, to go on with."""
        path = resolve(self._source, self._path, follow_last=self._action.follow_symlink)
        info = lstat(self._source, path)
        if info is None or not is_visible(self._rules.visible, path):
            raise ContextError(
                f"{self._path}: no such file or directory", hint="paths are relative to the root of the source"
            )
        head, _, tail = self._dest.rpartition("/")
        self._make(resolve(self._target, self._dest if tail in ("", ".") else head))
        target = self._place(resolve(self._target, self._dest), stat.S_ISDIR(info.st_mode))
        if stat.S_ISDIR(info.st_mode):
            return self._copier.top(path, target, info)
        self.done.add(self._copier.file(path, target, info))
        return None

    def _place(self, dest: Path, directory: bool) -> Path:
        """The path of the copy itself; its directory is made."""
        there = lstat(self._target, dest)
        contents = directory and self._action.dir_copy_contents
        inside = there is not None and (directory or stat.S_ISDIR(there.st_mode)) and not contents
        base = os.fsencode(self._path.rstrip("/").rpartition("/")[2])
        if inside and base not in (b"", b"."):
            dest = (*dest, base)
        self._make(dest if contents and there is None else dest[:-1])
        return dest

    def _make(self, path: Path) -> None:
        self._made += make_directories(self._target, path, self._mode, self._given)

    def _batch(self, directories: list[Directory]) -> Batch:
        with explained(self._doing):
            return self._copier.batch(directories)

    def _finish(self) -> None:
        with explained(self._doing):
            self._copier.finish(self.done)
            if self._rules.timestamp is not None:
                set_times(self._target, self._made, self._rules.timestamp)


class _Workers:
    """Tasks that share a list of directories; each takes one and goes on below it for the length of a batch."""

    def __init__(self, work: Callable[[list[Directory]], Batch], done: Batch) -> None:
        self._work = work
        self._done = done
        self._pending = done.rest
        self._active = 0
        self._changed = trio.Event()

    async def run(self) -> None:
        with one_error():
            async with trio.open_nursery() as nursery:
                for _ in range(_WORKERS):
                    nursery.start_soon(self._worker)

    async def _worker(self) -> None:
        while True:
            while not self._pending and self._active:
                await self._changed.wait()
            if not self._pending:
                return
            self._active += 1
            batch = await offload(self._work, [self._pending.pop()], limiter=DISK)
            self._active -= 1
            self._pending += batch.rest
            self._done.add(batch)
            self._changed.set()
            self._changed = trio.Event()
