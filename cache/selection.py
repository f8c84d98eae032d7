"""Which part of a tree counts: a path or wildcard, what it includes and what it leaves out. Pure values.

A `Filter` says of each path of a walk, parents first, whether it is kept. A directory that is not kept itself may
still hold something that is: it is entered unless the verdict is PRUNE, and counts when something in it does.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable
from enum import Enum

from buildengine.values import dataclass
from llb.globs import has_wildcard
from llb.patterns import MATCHED, PatternMatcher


class Verdict(Enum):
    KEEP = "keep"
    SKIP = "skip"  # not this, but look below
    PRUNE = "prune"  # not this and nothing below


Filter = Callable[[str, bool], Verdict]
"""(path relative to where the walk starts, is it a directory) -> verdict. One filter object serves one walk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """What of a tree goes into a content digest (BuildKit's opsutils.Selector).

    `path` is cleaned by words (`a/../b` is `b`, whatever `a` is) and then resolved inside the tree; its last
    component is followed with `follow_links`. With `wildcard` its components are patterns of Go's path.Match; a
    backslash is one only from the first wildcard on. `required` names paths that must have been selected.
    """

    path: str = "/"
    wildcard: bool = False
    follow_links: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    @property
    def is_pattern(self) -> bool:
        """Patterns may be allowed for a path that is none."""
        return self.wildcard and has_wildcard(self.path)

    def filter(self) -> Filter | None:
        return PatternFilter(self.include, self.exclude) if self.include or self.exclude else None


def selectors_key(selectors: Iterable[Selector]) -> str:
    """One spelling for a set of selectors."""
    rows = {
        (clean(s.path), s.wildcard, s.follow_links, s.include, s.exclude, s.required): None for s in ordered(selectors)
    }
    return json.dumps(list(rows), separators=(",", ":"))


def ordered(selectors: Iterable[Selector]) -> list[Selector]:
    """Without duplicates, in an order that does not depend on who asks."""
    distinct = dict.fromkeys(selectors)
    return sorted(distinct, key=lambda s: (clean(s.path), s.wildcard, s.follow_links, s.include, s.exclude, s.required))


class PatternFilter:
    """A `Filter` of Docker's patterns. Remembers the state of each directory that it has let through."""

    __slots__ = ("_exclude", "_include", "_states")

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._include = PatternMatcher(include)
        self._exclude = PatternMatcher(exclude)
        self._states: dict[str, tuple[int, int]] = {}

    def __call__(self, path: str, is_dir: bool) -> Verdict:
        included, excluded = self._states.get(path.rpartition("/")[0], (0, 0))
        if self._include:
            included = self._include.step(path, included)
        if self._exclude:
            excluded = self._exclude.step(path, excluded)
        if is_dir:
            self._states[path] = (included, excluded)
        if (not self._include or included & MATCHED) and not excluded & MATCHED:
            return Verdict.KEEP
        if is_dir and self._may_keep_below(path, included, excluded):
            return Verdict.SKIP
        return Verdict.PRUNE

    def _may_keep_below(self, path: str, included: int, excluded: int) -> bool:
        if excluded & MATCHED and self._exclude.can_prune(path):
            return False
        return not self._include or bool(included & MATCHED) or self._include.reaches(path)


def clean(path: str) -> str:
    """`path` as an absolute one without empty, `.` and `..` components (those stop at the root)."""
    return posixpath.normpath("/" + path.lstrip("/"))
