"""Local sources: which part of a directory a build may see.

The frontend names the paths it will read (`local.followpaths`); a path that is a symlink, or leads through one,
needs the link and what it points at. Links are resolved inside the directory: `..` stops at its top and an
absolute link starts there, whatever lies outside. What comes out are include patterns.

Facts: fsutil's followlinks.go and filter.go (NewFilterFS), which BuildKit's clients use on their side.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from buildengine.errors import ContextError
from buildengine.inroot import open_in_root
from llb.globs import has_wildcard, name_pattern
from llb.paths import clean
from worker.sources.origin import LocalOrigin

_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))


def include_patterns(path: str, origin: LocalOrigin) -> tuple[str, ...]:
    """What of the directory `path` is included; empty when all of it is. Raises ContextError, UserError.

    The patterns are those of `origin`, and its follow paths with all that their symlinks lead to.
    """
    if not origin.follow_paths:
        return origin.include_patterns
    try:
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ContextError(f"cannot read the directory {path}: {error.strerror}") from error
    try:
        followed = follow_links(root, origin.follow_paths)
    finally:
        os.close(root)
    return _without_nested((*origin.include_patterns, *followed)) if followed else origin.include_patterns


def follow_links(root: int, paths: Iterable[str]) -> tuple[str, ...]:
    """`paths` and all that symlinks in them lead to, relative to `root`, sorted; empty when the top is among them.

    A last component may be a wildcard. What does not exist stays as it is written: it may be a pattern.
    """
    walk = _Walk(root)
    for path in paths:
        walk.follow(path)
    return _without_nested(sorted(walk.resolved))


class _Walk:
    def __init__(self, root: int) -> None:
        self._root = root
        self.resolved: set[str] = set()

    def follow(self, path: str) -> None:
        """Add `path`, and what it means. Ends because a link is followed once for each place it is met at."""
        waiting = [path]
        while waiting:
            parts = clean("/" + waiting.pop()).strip("/").split("/")
            for count in range(1, len(parts) + 1):
                current, rest = "/".join(parts[:count]) or ".", "/".join(parts[count:])
                targets = self._targets(current)
                if (targets or not rest) and current in self.resolved:
                    break
                if targets or not rest:
                    self.resolved.add(current)
                if targets:
                    waiting += [f"{target}/{rest}" for target in targets]
                    break

    def _targets(self, path: str) -> Sequence[str]:
        """Where the symlink at `path`, or the symlinks that match its last component, lead."""
        directory, _, name = path.rpartition("/")
        names = self._matching(directory, name) if has_wildcard(name) else [name]
        links = (self._link(f"{directory}/{name}") for name in names)
        return [link if link.startswith("/") else f"{directory}/{link}" for link in links if link]

    def _matching(self, directory: str, pattern: str) -> Sequence[str]:
        matches = name_pattern(pattern).fullmatch
        fd = self._open(directory, os.O_RDONLY | os.O_DIRECTORY)
        if fd is None:
            return []
        try:
            return [name for name in sorted(os.listdir(fd)) if matches(name)]
        finally:
            os.close(fd)

    def _link(self, path: str) -> str:
        fd = self._open(path, os.O_PATH)
        if fd is None:
            return ""
        try:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else ""
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int | None:
        try:
            return open_in_root(self._root, path, flags, follow=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise ContextError(f"cannot read {path} of the build context: {error.strerror}") from error


def _without_nested(patterns: Iterable[str]) -> tuple[str, ...]:
    """Without what lies below the pattern before it; nothing at all when the top itself is among them."""
    kept: list[str] = []
    for pattern in patterns:
        if pattern == ".":
            return ()
        if not kept or not pattern.startswith(kept[-1] + "/"):
            kept.append(pattern)
    return tuple(kept)
