"""What a content digest is computed over: a tree, as a Protocol, and how a path is resolved in one.

Implemented by `cache.fdtree` (an open directory) and `cache.localscan` (a scan of a user's directory).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from buildengine.values import dataclass

MAX_LINKS = 255  # as BuildKit (contenthash/path.go); the kernel stops at 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Something in a tree. `path` goes through no symlink; the root is ""."""

    path: str
    is_dir: bool
    is_link: bool = False


class Directory(Protocol):
    """An open directory."""

    @property
    def entries(self) -> Sequence[tuple[str, bool]]:
        """(name, is it a directory), sorted."""
        ...

    def record(self, name: str) -> bytes:
        """See `cache.filehash.record`. Reads the file."""
        ...


class Tree(Protocol):
    def resolve(self, path: str, *, follow: bool) -> Place | None:
        """What is at `path`, symlinks on the way followed inside the tree, and the last one with `follow`."""
        ...

    def open(self, path: str) -> AbstractContextManager[Directory]: ...

    def record(self, path: str) -> bytes: ...


Look = Callable[[str], tuple[bool, str | None] | None]
"""path without symlinks -> (is it a directory, its target if it is a symlink), None when nothing is there"""


def resolve(path: str, look: Look, *, follow: bool) -> Place | None:
    """Resolve inside the root: `..` stops there and absolute links start there. None also for a loop of links."""
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    is_dir, link = True, None
    while todo:
        part = todo.pop()
        if part in ("", ".", ".."):
            del done[len(done) - (part == "..") :]
            is_dir, link = True, None
            continue
        found = look("/".join([*done, part]))
        if found is None:
            return None
        is_dir, link = found
        rest = any(part not in ("", ".") for part in todo)
        if link is not None and (rest or follow):
            links += 1
            if links > MAX_LINKS:
                return None
            if link.startswith("/"):
                done.clear()
            todo += link.split("/")[::-1]
            is_dir, link = True, None
            continue
        if rest and not is_dir:
            return None
        done.append(part)
        if link is not None or not is_dir:
            return Place(path="/".join(done), is_dir=False, is_link=link is not None)
    return Place(path="/".join(done), is_dir=is_dir)
