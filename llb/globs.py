"""Wildcards in one name of a path, as Go's path.Match reads them: `*`, `?`, `[a-z]`, `[^a-z]` and a backslash.

The one compiler of them: selectors, copies and removals match whole names with `name_pattern`; Docker's path patterns
(llb/patterns.py) are put together from `atom` and `starred`. No pattern makes matching exponential. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from buildengine.errors import UserError

_LONGEST = 4096  # characters: a name has at most 255 bytes, and to make an expression takes 6 us for each
_WILD = re.compile(r"(?<!\\)(?:\\\\)*[*?[]")


def has_wildcard(text: str) -> bool:
    """Whether `text` means more than itself. A backslash alone does not count."""
    return _WILD.search(text) is not None


def name_pattern(text: str) -> re.Pattern[str]:
    """A pattern whose `fullmatch` decides on one name, which has no slash. Raises UserError for bad syntax."""
    if len(text) > _LONGEST:
        raise UserError(f"syntax error in pattern {text[:100]!r}...: it has more than {_LONGEST} characters")
    pieces, at = [""], 0
    while at < len(text):
        if text[at] == "*":
            pieces.append("")
            at += 1
        else:
            regex, at = atom(text, at)
            pieces[-1] += regex
    return re.compile(starred(pieces))


def starred(pieces: Sequence[str]) -> str:
    """`pieces`, regular expressions of a fixed width, with a star between each two.

    The leftmost place of a piece between two stars is as good as any other: it is atomic, so only the last piece is
    ever tried twice.
    """
    if len(pieces) == 1:
        return pieces[0]
    return pieces[0] + "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1]) + "[^/]*" + pieces[-1]


def atom(text: str, at: int) -> tuple[str, int]:
    """What stands at `at`, anything but a star, as a regular expression for one character; and the place behind it."""
    char = text[at]
    if char == "?":
        return "[^/]", at + 1
    if char == "[":
        return _set(text, at + 1)
    if char == "\\":
        char, at = _escaped(text, at)
        return re.escape(char), at
    return re.escape(char), at + 1


def characters(source: str) -> Callable[[str], bool]:
    """Whether a character is one that `source`, the text of one `atom`, stands for."""
    if source == "?":
        return lambda char: char != "/"
    if source.startswith("["):
        negated, ranges, _ = _ranges(source, 1)
        return lambda char: char != "/" and any(low <= char <= high for low, high in ranges) != negated
    return source[-1].__eq__


def _set(text: str, at: int) -> tuple[str, int]:
    """`[abc]`, `[a-z]` or `[^x]`, from behind its bracket."""
    negated, ranges, at = _ranges(text, at)
    members = (re.escape(low) if high == low else f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges)
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]", at


def _ranges(text: str, at: int) -> tuple[bool, list[tuple[str, str]], int]:
    """Whether the set is negated, its ranges from lowest to highest, and the place behind it."""
    negated = text.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and text.startswith("]", at)):
        low, at = _member(text, at)
        high = low
        if text.startswith("-", at):
            high, at = _member(text, at + 1)
        if high < low:
            raise _bad(text, f"the range {low}-{high} is upside down")
        ranges.append((low, high))
    return negated, ranges, at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    if at >= len(text) or text[at] in "]-":
        raise _bad(text, "a [set] is not closed or empty")
    return _escaped(text, at) if text[at] == "\\" else (text[at], at + 1)


def _escaped(text: str, at: int) -> tuple[str, int]:
    if at + 1 >= len(text):
        raise _bad(text, "it ends with a backslash")
    return text[at + 1], at + 2


def _bad(text: str, why: str) -> UserError:
    return UserError(f"syntax error in pattern {text!r}: {why}", hint="quote a special character with a backslash")
