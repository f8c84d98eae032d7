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

from buildengine.errors import UserError
from llb.paths import clean
from worker.layers.names import Path
from worker.layers.rootpath import lstat, open_directory, resolve

_WILD = re.compile(r"(?<!\\)(?:\\\\)*[*?[]")


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
    if not wildcards or not _has_wildcard(plain):
        return (plain if wildcards else path,)
    names = plain[1:].split("/")
    first = next(i for i, name in enumerate(names) if _has_wildcard(name))
    base = resolve(root, "/".join(names[:first]), follow_last=follow)
    patterns = [re.compile(_translate(name), re.DOTALL) for name in names[first:]]
    found = (os.fsdecode(b"/" + b"/".join(match)) for match in _walk(root, base, patterns))
    return tuple(found)


def _has_wildcard(text: str) -> bool:
    return _WILD.search(text) is not None


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


def _translate(pattern: str) -> str:
    """One name of Go's filepath.Match as a regular expression."""
    pieces, position = [""], 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "."
        elif char == "[":
            text, position = _set(pattern, position)
            pieces[-1] += text
        else:
            if char == "\\":
                char, position = _escaped(pattern, position)
            pieces[-1] += re.escape(char)
    if len(pieces) == 1:
        return pieces[0]
    # A piece between two stars has a fixed length, so its leftmost place is as good as any: atomic, hence never slow.
    return pieces[0] + "".join(f"(?>.*?{piece})" for piece in pieces[1:-1]) + ".*" + pieces[-1]


def _set(pattern: str, position: int) -> tuple[str, int]:
    """`[abc]`, `[a-z]` or `[^x]`, from behind its bracket."""
    negated = pattern.startswith("^", position)
    position += negated
    members: list[str] = []
    while not (members and pattern.startswith("]", position)):
        low, position = _member(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _member(pattern, position + 1)
        if high < low:
            raise _bad(pattern)
        members.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' if negated else ''}{''.join(members)}]", position + 1


def _member(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern) or pattern[position] in "]-":
        raise _bad(pattern)
    if pattern[position] == "\\":
        return _escaped(pattern, position + 1)
    return pattern[position], position + 1


def _escaped(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern):
        raise _bad(pattern)
    return pattern[position], position + 1


def _bad(pattern: str) -> UserError:
    return UserError(f"syntax error in pattern {pattern!r}", hint="quote a special character with a backslash")
