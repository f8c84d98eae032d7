"""Docker's path patterns: `*`, `?`, `[a-z]`, `**` and `!`, as .dockerignore, COPY --exclude and local sources use them.

The meaning is that of Go's moby/patternmatcher. A pattern also matches everything below what it matches; the
last pattern that matches decides; `!` takes back. Two forms: `matches(path)` for one path, and `step(path, state)`
for a walk, where a directory's state is handed to its children. They differ, as they do in Go, in one corner: a
walk does not look again at a pattern that it skipped for a parent because another had already matched.

Consecutive patterns of one polarity are a group. What has no special character is looked up; the others of a group
become one regular expression, with `*` as an atomic group, so a path costs about a microsecond. What a regular
expression might try for ever, a pattern with several `**` that cannot be placed one after the other, and what is too
much to make one of, is an automaton instead (llb/automaton.py). Pure: touches no file.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from itertools import groupby

from buildengine.errors import UserError
from buildengine.values import dataclass
from llb.automaton import DEEP, REST, STAR, Automaton, Token, bits, places
from llb.globs import atom, starred
from llb.paths import clean

MATCHED = 1  # bit 0 of a walk state: the path itself is matched; the bits above say by which groups
_SPECIAL = re.compile(r"[*?\[\]\\]")
_TAKES_MORE = "[\\"  # than one character of the pattern for one of the path
_MOST_AS_REGEX = 1 << 14  # characters: to make a regular expression of them takes up to 0.1 s
_SLICE = 1 << 16  # characters of an automaton: operations on numbers that the processor's cache holds

_Matches = list[tuple[int, Callable[[str], object]]]  # by group


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One cleaned pattern. `literal` is its text before the first special character; `tokens`: () for a plain one."""

    text: str
    negated: bool
    literal: str
    tokens: tuple[Token, ...]


class PatternMatcher:
    """An ordered list of patterns. Paths are relative, slash-separated and clean. Raises UserError on bad syntax."""

    def __init__(self, patterns: Iterable[str]) -> None:
        parsed = filter(None, map(cache(parse_pattern), patterns))
        self._negated: list[bool] = []  # by group
        self._plain: defaultdict[str, list[int]] = defaultdict(list)  # text -> groups
        self._special: list[tuple[int, Pattern]] = []
        self._patterns: tuple[list[Pattern], list[Pattern]] = ([], [])  # and those with `!`
        for group, (negated, run) in enumerate(groupby(parsed, _is_negated)):
            self._negated.append(negated)
            for one in {one.text: one for one in run}.values():
                self._patterns[negated].append(one)
                if one.tokens:
                    self._special.append((group, one))
                else:
                    self._plain[one.text].append(group)

    def __bool__(self) -> bool:
        return bool(self._negated)

    def matches(self, path: str) -> bool:
        """Whether the patterns match `path` or one of its parents, the last match deciding."""
        parents = [path[: slash.start()] for slash in re.finditer("/", path)]
        hits = [self._plain[one][-1] for one in (*parents, path) if one in self._plain]
        hits += [group for group, match in self._below if match(path)]
        hits += [group for one in self._automata if (group := one.last_group(path)) is not None]
        return bool(hits) and not self._negated[max(hits)]

    def step(self, path: str, parent: int = 0) -> int:
        """The walk state of `path`, given its directory's. `state & MATCHED` tells whether it is matched."""
        if self._negated == [False]:
            return 3 if parent or self._hits(path) else 0
        hits = self._hits(path)
        if not parent and not hits:
            return 0
        before = set(places(parent >> 1))
        matched, applied = False, []
        for group in sorted(before.union(hits)):
            if group in before or self._negated[group] == matched:
                matched = not self._negated[group]
                applied.append(group)
        return bits(applied) << 1 | matched

    def can_prune(self, directory: str) -> bool:
        """Whether a matched `directory` can be skipped whole: no `!` pattern could take back something below it."""
        return not self._taken_back.below(directory)

    def reaches(self, directory: str) -> bool:
        """Whether an unmatched `directory` is worth entering: some pattern could match below it."""
        return self._taken.below(directory)

    def _hits(self, path: str) -> list[int]:
        """The groups that match `path` itself, in any order."""
        hits = list(self._plain[path]) if path in self._plain else []
        for group, match in self._whole:
            if match(path):
                hits.append(group)  # a comprehension takes 0.2 us more, for each path of a tree
        for automaton in self._automata:
            hits += automaton.groups(path)
        return hits

    # --- made when first asked for ----------------------------------------------------------------------------

    @cached_property
    def _taken(self) -> _Reach:
        return _Reach(self._patterns[False])

    @cached_property
    def _taken_back(self) -> _Reach:
        return _Reach(self._patterns[True])

    @cached_property
    def _whole(self) -> _Matches:
        return self._compiled(r"\Z")

    @cached_property
    def _below(self) -> _Matches:
        return self._compiled(r"(?:/|\Z)")

    def _compiled(self, end: str) -> _Matches:
        sources, _ = self._translated
        return [(n, re.compile(f"(?:{'|'.join(several)}){end}", re.DOTALL).match) for n, several in sources.items()]

    @cached_property
    def _automata(self) -> list[Automaton]:
        _, rest = self._translated
        slices: list[list[tuple[int, Sequence[Token]]]] = []
        left = 0
        for group, tokens in rest:
            if left <= 0:
                slices.append([])
                left = _SLICE
            slices[-1].append((group, tokens))
            left -= len(tokens)
        return [Automaton(one) for one in slices]

    @cached_property
    def _translated(self) -> tuple[dict[int, list[str]], list[tuple[int, Sequence[Token]]]]:
        """Regular expressions by group, and the patterns that shall be none."""
        few = sum(len(one.text) for _, one in self._special) <= _MOST_AS_REGEX
        sources: defaultdict[int, list[str]] = defaultdict(list)
        rest: list[tuple[int, Sequence[Token]]] = []
        for group, one in self._special:
            regex = _translate(one.tokens) if few else None
            if regex is None:
                rest.append((group, one.tokens))
            else:
                sources[group].append(regex)
        return sources, rest


class _Reach:
    """Below which directories some of several patterns could match (rather too many than too few)."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._literals = sorted({one.literal for one in patterns})
        self._open = {one.literal for one in patterns if one.tokens}
        self._lengths = sorted(set(map(len, self._open)))

    def below(self, directory: str) -> bool:
        start = directory + "/"
        at = bisect_left(self._literals, start)
        if self._literals[at : at + 1] and self._literals[at].startswith(start):
            return True
        return any(start[:length] in self._open for length in self._lengths)


def _is_negated(pattern: Pattern) -> bool:
    return pattern.negated


def parse_pattern(text: str) -> Pattern | None:
    """What `text` means; None for a blank one. Raises UserError on bad syntax."""
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
    special = _SPECIAL.search(text)
    return Pattern(
        text=text,
        negated=negated,
        literal=text[: special.start()] if special else text,
        tokens=tuple(_tokens(text)) if special else (),
    )


def _tokens(text: str) -> Iterator[Token]:
    at, end, deep = 0, len(text), False
    if text.startswith("**") and text[2:3] not in ("/", "") and not _SPECIAL.search(text, 2):
        yield REST  # `**name` is a plain suffix in Go's matcher
        at = 2
    while at < end:
        before = at
        if text.startswith("**", at):
            at += 3 if text.startswith("/", at + 2) else 2
            if at >= end:
                yield REST
            elif not deep:  # two in a row are one
                yield DEEP
            deep = True
            continue
        at = at + 1 if text[at] not in _TAKES_MORE else atom(text, at)[1]
        deep = False
        yield text[before:at]


# --- to a regular expression --------------------------------------------------------------------------------


def _translate(tokens: Sequence[Token]) -> str | None:
    """None when more than one place of a `**` would be tried again."""
    if tokens[0] == REST:
        return ".*" + _names(tokens[1:])
    chunks: list[list[Token]] = [[]]
    for token in tokens:
        if token == DEEP:
            chunks.append([])
        elif token != REST:
            chunks[-1].append(token)
    regex, retried = _names(chunks[0]), 0
    # Taking the leftmost place for a chunk is safe, and so atomic, when it ends at a name's end: then an earlier
    # start is an earlier end. Only the last chunk must also meet the end of the path, so it may be retried.
    for before, chunk, last in zip(chunks, chunks[1:], range(len(chunks) - 2, -1, -1), strict=False):
        atomic = last and chunk and chunk[-1] == "/" and (not before or before[-1] == "/")
        retried += not atomic
        regex += f"(?{'>' if atomic else ':'}(?:[^/]*+/)*?{_names(chunk)})"
    return None if retried > 1 else regex + (".*" if tokens[-1] == REST else "")


def _names(tokens: Sequence[Token]) -> str:
    """A run of tokens without `**`."""
    out: list[str] = []
    name = [""]  # the pieces of the current name between its stars
    for token in [*tokens, ""]:
        if token == STAR:
            name.append("")
        elif token in ("/", ""):  # a name's end
            out += [starred(name), token]
            name = [""]
        else:
            name[-1] += atom(token, 0)[0]
    return "".join(out)
