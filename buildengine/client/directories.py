"""What a client offers as build contexts: directories on its disk, and files that are on no disk.

All of it blocks. A symlink is an entry, never a way out of the directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from buildengine.api.fsfiles import open_regular
from buildengine.api.fsutil import Entry
from buildengine.api.fswalk import walk
from buildengine.errors import ContextError
from cache.selection import Filter, PatternFilter, Verdict
from worker.sources.local import include_patterns
from worker.sources.origin import LocalOrigin

_MODE = stat.S_IFREG | 0o644


class Tree(Protocol):
    """A directory as a sender needs it, open."""

    def entries(self) -> Iterator[Entry]:
        """In the order of a listing. Raises ContextError."""
        ...

    def open(self, path: bytes) -> int:
        """A descriptor of a file's contents. Raises OSError."""
        ...


class Directory(Protocol):
    """What is offered under one name. `key` tells it from others, for as long as it is there."""

    @property
    def key(self) -> str: ...

    def opened(self, origin: LocalOrigin) -> AbstractContextManager[Tree]:
        """The part of it that `origin` asks for. Raises ContextError."""
        ...


class DiskDirectory:
    """A directory of this host. `name` is what the build calls it."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path.absolute()

    @property
    def key(self) -> str:
        return str(self._path)

    @contextmanager
    def opened(self, origin: LocalOrigin) -> Iterator[Tree]:
        if not self._path.is_dir():
            hint = "give the path of a directory to build from"
            raise ContextError(f"{self._name}: {self._path} is not a directory", hint=hint)
        keep = _filter(include_patterns(str(self._path), origin), origin.exclude_patterns)
        try:
            root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(f"cannot read the directory {self._path}: {error.strerror}") from error
        try:
            yield _DiskTree(root, keep)
        finally:
            os.close(root)


class _DiskTree:
    def __init__(self, root: int, keep: Filter | None) -> None:
        self._root = root
        self._keep = keep

    def entries(self) -> Iterator[Entry]:
        """Owners are not sent: whose a file is here says nothing about the image."""
        return (entry._replace(uid=0, gid=0) for entry in walk(self._root, self._keep))

    def open(self, path: bytes) -> int:
        return open_regular(self._root, path)


class Files:
    """A directory of a few files that are on no disk, such as a Dockerfile from standard input; or of none at all."""

    key = ""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self._files = files or {}

    @contextmanager
    def opened(self, origin: LocalOrigin) -> Iterator[Tree]:
        keep = _filter((*origin.include_patterns, *origin.follow_paths), origin.exclude_patterns)
        yield _FilesTree(self._files, keep)


class _FilesTree:
    def __init__(self, files: Mapping[str, bytes], keep: Filter | None) -> None:
        self._files = {name: data for name, data in files.items() if keep is None or keep(name, False) is Verdict.KEEP}

    def entries(self) -> Iterator[Entry]:
        for name in sorted(self._files, key=os.fsencode):
            yield Entry(os.fsencode(name), _MODE, size=len(self._files[name]))

    def open(self, path: bytes) -> int:
        fd = os.memfd_create("file")
        with open(fd, "wb", closefd=False) as file:
            file.write(self._files[os.fsdecode(path)])
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def _filter(include: tuple[str, ...], exclude: tuple[str, ...]) -> Filter | None:
    return PatternFilter(include, exclude) if include or exclude else None
