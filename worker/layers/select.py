"""Which files a copy or removal means: wildcards in a path, and include and exclude patterns below it.

A wildcard never crosses a slash and never follows a symlink; the part of the path before the first wildcard follows
them inside the root (Go's filepath.Match and fsutil's ResolveWildcards). This module must not know what is then done.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Protocol

from llb.globs import has_wildcard, name_pattern
from llb.paths import clean
from worker.layers.names import Path
from worker.layers.rootpath import lstat, open_directory, resolve


class PathMatcher(Protocol):
    """Patterns in Docker's language, walked down a tree: `state & 1` says whether a path is matched."""

    def step(self, path: str, parent: int = 0) -> int: ...
    def can_prune(self, directory: str) -> bool: ...
    def reaches(self, directory: str) -> bool: ...


def matches(root: int, path: str, *, wildcards: bool, follow: bool) -> tuple[str, ...]:
    """The absolute paths below `root` that `path` means, sorted; with wildcards possibly none.

    `follow` follows a symlink that ends the part before the first wildcard. Raises UserError for a bad pattern.
    """
    plain = clean(f"/{path}")
    if not wildcards or not has_wildcard(plain):
        return (plain if wildcards else path,)
    names = plain[1:].split("/")
    first = next(i for i, name in enumerate(names) if has_wildcard(name))
    base = resolve(root, "/".join(names[:first]), follow_last=follow)
    patterns = [name_pattern(name) for name in names[first:]]
    found = (os.fsdecode(b"/" + b"/".join(match)) for match in _walk(root, base, patterns))
    return tuple(found)


def _walk(root: int, directory: Path, patterns: list[re.Pattern[str]]) -> Iterator[Path]:
    fd = open_directory(root, directory)
    try:
        names = sorted(map(os.fsencode, os.listdir(fd)))
    finally:
        os.close(fd)
    for name in names:
        if not patterns[0].fullmatch(os.fsdecode(name)):
            continue
        path = (*directory, name)
        if len(patterns) == 1:
            yield path
        else:
            info = lstat(root, path)
            if info is not None and stat.S_ISDIR(info.st_mode):
                yield from _walk(root, path, patterns[1:])
