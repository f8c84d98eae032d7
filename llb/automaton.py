"""Path patterns as an automaton: for those with several `**` that a regular expression would try in every combination.

All places of a pattern that a path can have reached so far are the bits of one number, so a path costs its length times
a few operations on numbers, whatever the pattern. A regular expression is faster where it cannot go wrong:
`llb.patterns` chooses. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

STAR = "*"  # any characters of a name
DEEP = "**/"  # any number of whole directories, also none
REST = "**"  # at the end: everything

Token = tuple[str, str]
"""(kind, regex): kind is STAR, DEEP, REST, "/" or "" for one character; the last two have a regular expression."""


class Automaton:
    """Has `match` as a compiled regular expression has. With `below` it also matches what is below a match."""

    def __init__(self, tokens: Sequence[Token], *, below: bool) -> None:
        self._stars = _places(tokens, STAR)
        self._deep = _places(tokens, DEEP)
        self._rest = _places(tokens, REST)
        self._end = 1 << len(tokens)
        self._below = below
        self._atoms = [(1 << place, re.compile(regex, re.DOTALL)) for place, (_, regex) in enumerate(tokens) if regex]
        self._accepting: dict[str, int] = {}

    def match(self, path: str) -> bool:
        at = self._skipping(1)
        inside = 0  # the `**` within whose directories the path may be
        for char in path:
            if at & self._rest or (self._below and char == "/" and at & self._end):
                return True
            inside |= at & self._deep
            after = (at & self._accepts(char)) << 1
            after |= inside << 1 if char == "/" else at & self._stars
            at = self._skipping(after)
            if not at | inside:
                return False
        return bool(at & (self._end | self._rest))

    def _skipping(self, at: int) -> int:
        """Stars and directories may also stand for nothing."""
        while more := (at & (self._stars | self._deep)) << 1 & ~at:
            at |= more
        return at

    def _accepts(self, char: str) -> int:
        """The places at which `char` may stand."""
        known = self._accepting.get(char)
        if known is None:
            known = self._accepting[char] = sum(place for place, atom in self._atoms if atom.fullmatch(char))
        return known


def _places(tokens: Sequence[Token], kind: str) -> int:
    return sum(1 << place for place, token in enumerate(tokens) if token[0] == kind)
