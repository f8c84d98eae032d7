"""Path patterns as an automaton: for what a regular expression would try in every combination, and for very many.

All places of all patterns that a path can have reached so far are the bits of one number, so a path costs its length
times a few operations on numbers, whatever the patterns. A regular expression is faster where it cannot go wrong, but
takes some 40 us a pattern to make: `llb.patterns` chooses. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from llb.globs import characters

STAR = "*"  # any characters of a name
DEEP = "**/"  # any number of whole directories, also none
REST = "**"  # any characters, slashes too
_OPEN = (STAR, DEEP, REST)

Token = str
"""STAR, DEEP, REST, or what stands for one character, as it is written: `/`, `a`, `?`, `[a-z]`, `\\*`."""

_MOST_CHARACTERS = 256  # whose places are remembered: a number each, as long as the patterns


class Automaton:
    """Patterns, each of a group, in the order of the groups: which of these match a path?"""

    def __init__(self, patterns: Sequence[tuple[int, Sequence[Token]]]) -> None:
        standing: defaultdict[str, list[int]] = defaultdict(list)  # by token
        starts: list[int] = []
        self._group_at: dict[int, int] = {}  # by the place behind a pattern, from which nothing leads to the next one
        start = 0
        for group, tokens in patterns:
            starts.append(start)
            for place, token in enumerate(tokens, start):
                standing[token].append(place)
            start += len(tokens)
            self._group_at[start] = group
            start += 1
        self._stars, self._deep, self._rest = (bits(standing.pop(token, ())) for token in _OPEN)
        self._starts, self._ends = bits(starts), bits(self._group_at)
        self._skipped = self._stars | self._deep | self._rest
        self._characters = [(characters(token), at) for token, at in standing.items()]
        self._accepting: dict[str, int] = {}
        self._shortest = min(sum(token not in _OPEN for token in tokens) for _, tokens in patterns)

    def groups(self, path: str) -> Iterator[int]:
        """Those that match `path`, ascending. One may come more than once."""
        return (self._group_at[place] for place in places(self._found(path, below=False)))

    def last_group(self, path: str) -> int | None:
        """The last that matches `path` or a parent of it."""
        found = self._found(path, below=True)
        return self._group_at[found.bit_length() - 1] if found else None

    def _found(self, path: str, *, below: bool) -> int:
        """The places behind the patterns that match, with `below` also those that match a parent."""
        if len(path) < self._shortest:
            return 0
        at = self._skipping(self._starts)
        inside = found = 0  # inside: the `**/` within whose directories the path may be
        for char in path:
            if below and char == "/":
                found |= at & self._ends
            inside |= at & self._deep
            after = (at & self._accepts(char)) << 1 | at & self._rest
            after |= inside << 1 if char == "/" else at & self._stars
            at = self._skipping(after)
            if not at | inside:
                break
        return found | at & self._ends

    def _skipping(self, at: int) -> int:
        """Stars and directories may also stand for nothing."""
        while more := (at & self._skipped) << 1 & ~at:
            at |= more
        return at

    def _accepts(self, char: str) -> int:
        """The places at which `char` may stand."""
        known = self._accepting.get(char)
        if known is None:
            if len(self._accepting) >= _MOST_CHARACTERS:
                self._accepting.clear()
            known = bits([place for allowed, at in self._characters if allowed(char) for place in at])
            self._accepting[char] = known
        return known


def bits(places: Collection[int]) -> int:
    """The number with these bits. Not a sum of powers: of n bits that takes n squared."""
    number = bytearray(max(places, default=0) // 8 + 1)
    for place in places:
        number[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(number, "little")


def places(number: int) -> Iterator[int]:
    """The bits of a number, from the lowest."""
    return (one.start() for one in re.finditer("1", f"{number:b}"[::-1])) if number else iter(())
