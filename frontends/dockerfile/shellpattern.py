"""The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*`, `?` and escaped characters.

A pattern is cut at its stars into pieces of fixed width. Placing each piece as far left as it goes is always safe,
so matching is linear however many stars there are; a regular expression with many `.*` is not. Pure.
"""

from __future__ import annotations

import re

from buildengine.errors import ParseError

_ANY = ""  # a token: `?`; every other token is one literal character or _STAR
_STAR = "**"


def trim_prefix(pattern: str, value: str, *, longest: bool) -> str:
    """`${value#pattern}`, or `##` when `longest`."""
    end = _prefix(_pieces(_tokens(pattern)), value, 0, longest=longest)
    return value if end is None else value[end:]


def trim_suffix(pattern: str, value: str, *, longest: bool) -> str:
    """`${value%pattern}`, or `%%` when `longest`: a prefix seen in a mirror."""
    end = _prefix(_pieces(_tokens(pattern)[::-1]), value[::-1], 0, longest=longest)
    return value if end is None else value[: len(value) - end]


def replace(pattern: str, value: str, replacement: str, *, every: bool, longest: int) -> str:
    """`${value/pattern/replacement}`, or `//` when `every`: the longest match at the leftmost place.

    Raises ParseError when the result is longer than `longest`.
    """
    pieces = _pieces(_tokens(pattern))
    out: list[str] = []
    at, last = 0, -1
    while at <= len(value):
        first = pieces[0].search(value, at)
        end = _prefix(pieces, value, first.start(), longest=True) if first else None
        if first is None or end is None:  # a later start cannot help the pieces behind the first
            break
        if first.start() == end == last:  # Go's regexp has no empty match right behind another match
            out.append(value[at : end + 1])
            at = end + 1
            continue
        last = end
        out += [value[at : first.start()], replacement]
        if len(out) // 2 * len(replacement) > longest:
            raise ParseError(f"a replacement makes more than {longest} characters")
        if end == first.start():  # an empty match: step over one character
            out.append(value[end : end + 1])
            end += 1
        at = end
        if not every:
            break
    return "".join(out) + value[at:]


def _prefix(pieces: list[re.Pattern[str]], value: str, at: int, *, longest: bool) -> int | None:
    """Where the match that begins at `at` ends."""
    first = pieces[0].match(value, at)
    if first is None:
        return None
    at = first.end()
    for piece in pieces[1:-1]:
        found = piece.search(value, at)
        if found is None:
            return None
        at = found.end()
    if len(pieces) == 1:
        return at
    last = pieces[-1]
    if not longest:
        found = last.search(value, at)
        return found.end() if found else None
    return next((m.end() for start in range(len(value), at - 1, -1) if (m := last.match(value, start))), None)


def _pieces(tokens: list[str]) -> list[re.Pattern[str]]:
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if token == _STAR:
            pieces.append([])
        else:
            pieces[-1].append("." if token == _ANY else re.escape(token))
    return [re.compile("".join(piece), re.DOTALL) for piece in pieces]


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\":
            char = pattern[at : at + 1]
            if char not in ("*", "?", "\\", "}", "/"):  # the last two: escaped only to get through `${ }`
                raise ParseError(
                    f"invalid pattern ({pattern}) in substitution: invalid escape '\\{char}'",
                    hint="only * ? \\ } and / are escaped in a pattern",
                )
            at += 1
            tokens.append(char)
        else:
            tokens.append({"*": _STAR, "?": _ANY}.get(char, char))
    return tokens
