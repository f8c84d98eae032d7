"""Regular expressions that a client wrote: in Go's syntax, and in linear time whatever they are.

Python's `re` tries in turn, so that a few characters of a hostile pattern stop the daemon's only loop for years. RE2 is
what Go's regexp is: the same syntax and the same answers, and no pattern makes a search take longer than the product of
the two sizes. Both are bounded here, so that is below a second; a search lets other threads run meanwhile. Pure.

What differs is put right here: Go's words for a mistake, and which empty matches are replaced.
Facts: Go regexp/syntax/parse.go (ErrorCode), regexp/regexp.go (replaceAll); RE2 re2/re2.h (Options), re2/re2.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from buildengine.errors import UserError
from buildengine.values import dataclass

LONGEST = 8192  # characters, of an expression and of what it looks at
_MEMORY = 256 << 10  # bytes of a compiled one: some 10,000 instructions; a class like \pL is 700
_TOO_LARGE = "expression too large"
_IN_GO = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "pattern too large - compile failed": _TOO_LARGE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where an expression matches. `groups` are numbered from 1; one that took no part is ""."""

    whole: str
    groups: Sequence[str]
    named: dict[str, str]


class Expression:
    """A compiled expression. Raises UserError, in Go's words, for one that cannot be meant."""

    def __init__(self, text: str) -> None:
        import re2  # 5 ms, and few commands have any expression

        options = re2.Options()
        options.log_errors, options.max_mem = False, _MEMORY
        if len(text) > LONGEST:
            raise _bad(_TOO_LARGE, text[:100])
        try:
            self._compiled: Any = re2.compile(text, options)
        except re2.error as error:
            code, _, where = _words(error).partition(": ")
            what = _IN_GO.get(code, code)
            raise _bad(what, text if what == _TOO_LARGE else where) from None
        except UnicodeEncodeError:
            raise _bad("invalid UTF-8", text) from None

    def matches(self, text: str) -> bool:
        """Whether it matches anywhere in `text`. Raises UserError when that is too long."""
        return self._compiled.search(_subject(text)) is not None

    def replaced(self, text: str, replacement: Callable[[Found], str]) -> str:
        """`text`, all matches of which are replaced. Raises UserError as `matches` does."""
        pieces: list[str] = []
        end = 0
        for match in self._compiled.finditer(_subject(text)):
            pieces.append(text[end : match.start()])
            if match.end() > end or match.start() == 0:  # no empty match right behind another
                found = Found(whole=match.group(), groups=match.groups(default=""), named=match.groupdict(default=""))
                pieces.append(replacement(found))
            end = match.end()
        return "".join(pieces) + text[end:]


def _words(error: Exception) -> str:
    (words,) = error.args
    return words.decode() if isinstance(words, bytes) else str(words)


def _bad(what: str, where: str) -> UserError:
    return UserError(
        f"error parsing regexp: {what}: `{where}`",
        hint="a regular expression is written as for Go's regexp (RE2): without lookarounds and references to groups",
    )


def _subject(text: str) -> str:
    if len(text) > LONGEST:
        raise UserError(f"a regular expression looks at no more than {LONGEST} characters, not at {len(text)}")
    return text.encode("utf-8", "replace").decode()
