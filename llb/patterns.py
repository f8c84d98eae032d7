"""Docker's path patterns: `*`, `?`, `[a-z]`, `**` and `!`, as .dockerignore, COPY --exclude and local sources use them.

The meaning is that of Go's moby/patternmatcher. A pattern also matches everything below what it matches; the
last pattern that matches decides; `!` takes back. Two forms: `matches(path)` for one path, and `step(path, state)`
for a walk, where a directory's state is handed to its children. They differ, as they do in Go, in one corner: a
walk does not look again at a pattern that it skipped for a parent because another had already matched.

Consecutive patterns of one polarity become one regular expression, and `*` becomes an atomic group, so a path
costs about a microsecond. What a regular expression might try for ever, a pattern with several `**` that cannot be
placed one after the other, is an automaton instead (llb/automaton.py). Pure: touches no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Protocol

from buildengine.errors import UserError
from buildengine.values import dataclass
from llb.automaton import DEEP, REST, STAR, Automaton, Token
from llb.globs import atom, starred
from llb.paths import clean

MATCHED = 1  # bit 0 of a walk state: the path itself is matched; the bits above say by which groups
_META = frozenset("*?[]\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One cleaned pattern. `literal` is its text before the first special character; `regex` None: see `automaton`."""

    text: str
    negated: bool
    regex: str | None
    literal: str

    def could_match_below(self, directory: str) -> bool:
        """Whether some path below `directory` may match (rather too often than too seldom)."""
        below = directory + "/"
        return self.literal.startswith(below) or (len(self.literal) < len(self.text) and below.startswith(self.literal))


class _Matching(Protocol):
    def match(self, path: str, /) -> object: ...


class _Any:
    """Matches what one of several does."""

    def __init__(self, several: Sequence[_Matching]) -> None:
        self._several = several

    def match(self, path: str, /) -> bool:
        return any(one.match(path) for one in self._several)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    negated: bool
    path: _Matching
    path_or_parent: _Matching


class PatternMatcher:
    """An ordered list of patterns. Paths are relative, slash-separated and clean. Raises UserError on bad syntax."""

    __slots__ = ("_groups", "_plain", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(p for p in map(_parse, patterns) if p is not None)
        self._groups = tuple(_group(negated, tuple(run)) for negated, run in groupby(self.patterns, _is_negated))
        single = len(self._groups) == 1 and not self._groups[0].negated
        self._plain = self._groups[0] if single else None

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: str) -> bool:
        """Whether the patterns match `path` or one of its parents, the last match deciding."""
        matched = False
        for group in self._groups:
            if group.negated == matched and group.path_or_parent.match(path):
                matched = not matched
        return matched

    def step(self, path: str, parent: int = 0) -> int:
        """The walk state of `path`, given its directory's. `state & MATCHED` tells whether it is matched."""
        if self._plain is not None:
            return 3 if parent or self._plain.path.match(path) else 0
        state, matched, bit = 0, False, 1
        for group in self._groups:
            bit <<= 1
            if parent & bit or (group.negated == matched and group.path.match(path)):
                state |= bit
                matched = not group.negated
        return state | MATCHED if matched else state

    def can_prune(self, directory: str) -> bool:
        """Whether a matched `directory` can be skipped whole: no `!` pattern could take back something below it."""
        return not any(p.negated and p.could_match_below(directory) for p in self.patterns)

    def reaches(self, directory: str) -> bool:
        """Whether an unmatched `directory` is worth entering: some pattern could match below it."""
        return any(not p.negated and p.could_match_below(directory) for p in self.patterns)


def _is_negated(pattern: Pattern) -> bool:
    return pattern.negated


def _group(negated: bool, patterns: tuple[Pattern, ...]) -> _Group:
    return _Group(negated=negated, path=_either(patterns, below=False), path_or_parent=_either(patterns, below=True))


def _either(patterns: Sequence[Pattern], *, below: bool) -> _Matching:
    several: list[_Matching] = [Automaton([*_tokens(p.text)], below=below) for p in patterns if p.regex is None]
    regexes = [p.regex for p in patterns if p.regex is not None]
    if regexes:
        end = r"(?:/|\Z)" if below else r"\Z"
        several.insert(0, re.compile(f"(?:{'|'.join(regexes)}){end}", re.DOTALL))
    return several[0] if len(several) == 1 else _Any(several)


def _parse(text: str) -> Pattern | None:
    text = text.strip()
    if not text:
        return None
    text = clean(text)
    negated = text.startswith("!")
    if negated:
        text = text[1:]
        if not text:
            raise UserError(
                "illegal exclusion pattern: '!'", hint="write !path to keep a path that was excluded before"
            )
    literal = next((text[:i] for i, char in enumerate(text) if char in _META), text)
    return Pattern(text=text, negated=negated, regex=_translate(text), literal=literal)


# --- to a regular expression --------------------------------------------------------------------------------


def _translate(text: str) -> str | None:
    """None when more than one place of a `**` would be tried again."""
    if text.startswith("**") and not _META.intersection(text[2:]) and text[2:3] not in ("/", ""):
        return ".*" + re.escape(text[2:])  # `**name` is a plain suffix in Go's matcher
    chunks: list[list[Token]] = [[]]
    ends_open = False
    for token in _tokens(text):
        if token[0] == DEEP:
            if len(chunks) == 1 or chunks[-1]:  # two in a row are one
                chunks.append([])
        elif token[0] == REST:
            ends_open = True
        else:
            chunks[-1].append(token)
    regex, retried = _names(chunks[0]), 0
    # Taking the leftmost place for a chunk is safe, and so atomic, when it ends at a name's end: then an earlier
    # start is an earlier end. Only the last chunk must also meet the end of the path, so it may be retried.
    for before, chunk, last in zip(chunks, chunks[1:], range(len(chunks) - 2, -1, -1), strict=False):
        atomic = last and chunk and chunk[-1][0] == "/" and (not before or before[-1][0] == "/")
        retried += not atomic
        regex += f"(?{'>' if atomic else ':'}(?:[^/]*+/)*?{_names(chunk)})"
    return None if retried > 1 else regex + (".*" if ends_open else "")


def _names(tokens: list[Token]) -> str:
    """A run of tokens without `**`."""
    out: list[str] = []
    name = [""]  # the pieces of the current name between its stars
    for kind, regex in [*tokens, ("/", "")]:
        if kind == STAR:
            name.append("")
        elif kind == "/":
            out += [starred(name), regex]
            name = [""]
        else:
            name[-1] += regex
    return "".join(out)


def _tokens(text: str) -> Iterable[Token]:
    at, end = 0, len(text)
    while at < end:
        if text.startswith("**", at):
            at += 3 if text.startswith("/", at + 2) else 2
            yield (REST if at >= end else DEEP), ""
        elif text[at] in "*/":
            yield text[at], text[at].strip("*")
            at += 1
        else:
            regex, at = atom(text, at)
            yield "", regex
