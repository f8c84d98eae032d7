"""containerd's filter language (pkg/filters) over any kind of thing: `id==x,labels."a.b"~=^y`. Pure.

    filter   := selector ("," selector)*          all of a filter's selectors must hold, and any of several filters
    selector := path [operator [value]]           without an operator: the field is present
    path     := name ("." name)*                  a name is a word, or quoted
    operator := "==" | "!=" | "~=" (regular expression)
    value    := word | "quoted" | |quoted| | /quoted/     (the last two are expressions only)

What the fields are is the business of whoever looks: a `Lookup` gives the text of a path, or None. Whoever knows more
than that (docker's "=", times that are compared) reads selectors himself, and leaves the others to `condition`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from buildengine.errors import UserError
from buildengine.expressions import LONGEST, Expression
from buildengine.values import dataclass

_T = TypeVar("_T")
Lookup = Callable[[tuple[str, ...]], str | None]
Matcher = Callable[[Lookup], bool]

_NAME = r'(?:[A-Za-z_][\w-]*|"(?:[^"\\\n]|\\.)*")'
_SELECTOR = re.compile(
    rf"""\s*+(?P<path>{_NAME}(?:\.{_NAME})*)\s*+
    (?:(?P<operator>==|!=|~=|>=|<=|=(?!=)|>|<)\s*+
       (?P<value>"(?:[^"\\\n]|\\.)*"|\|(?:[^|\\\n]|\\.)*\||/(?:[^/\\\n]|\\.)*/|(?!["=!~])[^\s,]*))?
    \s*+(?:,|\Z)""",
    re.VERBOSE,
)
_WORDS = re.compile(_NAME)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_QUOTES = '"|/\\'  # of themselves, behind a backslash


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One condition. `operator` is "" for none; `value` is as it was written, and "" also where there is none."""

    path: tuple[str, ...]
    operator: str = ""
    value: str = ""

    def __str__(self) -> str:
        return ".".join(self.path) + self.operator + self.value


def parse(filters: Sequence[str]) -> Matcher:
    """What any of `filters` selects; everything when there is none. Raises UserError."""
    return parse_with(filters, condition)


def parse_with(filters: Sequence[str], condition: Callable[[Selector], Callable[[_T], bool]]) -> Callable[[_T], bool]:
    """The same, where `condition` says what a selector means. Raises UserError.

    Filters of expressions may take seconds to be parsed, and as long for some thousand things: do it in a thread.
    """
    if sum(map(len, filters)) > LONGEST:
        raise UserError(f"the filters have more than {LONGEST} characters")
    parsed = [list(map(condition, _selectors(text))) for text in filters if text.strip()]
    if not parsed:
        return lambda thing: True
    return lambda thing: any(all(holds(thing) for holds in conditions) for conditions in parsed)


def _selectors(text: str) -> Iterator[Selector]:
    position = 0
    while position < len(text):
        match = _SELECTOR.match(text, position)
        if match is None:
            raise UserError(
                f"invalid filter {text!r} near {text[position:]!r}",
                hint="a filter looks like name==value, name~=expression or name; several are joined with commas",
            )
        path = tuple(_unquoted(word) for word in _WORDS.findall(match["path"]))
        yield Selector(path=path, operator=match["operator"] or "", value=match["value"] or "")
        position = match.end()


def condition(selector: Selector) -> Matcher:
    """What containerd means by it. Raises UserError for an operator that it has not, and where a value is missing."""
    path, operator = selector.path, selector.operator
    if not operator:
        return lambda look: look(path) is not None
    if operator not in ("==", "!=", "~=") or not selector.value:
        raise UserError(f"invalid filter '{selector}'", hint="a field is compared by ==, != or ~=, and with a value")
    if operator == "~=":
        expression = _compiled(selector.value)
        return lambda look: expression.matches((look(path) or "")[:LONGEST])
    text = _unquoted(selector.value)
    if operator == "!=":
        return lambda look: (look(path) or "") != text
    return lambda look: look(path) == text


def _compiled(value: str) -> Expression:
    """An expression may stand in `|` or `/` too, and what is no escape of a string there is one of the expression."""
    text = value
    if len(value) > 1 and value[0] in '"|/' and value[0] == value[-1]:
        text = _ESCAPE.sub(partial(_unescape, keep="\\"), value[1:-1])
    try:
        return Expression(text)
    except UserError as error:
        raise UserError(f"invalid filter: {error.message}", hint=error.hint) from None


def _unquoted(value: str) -> str:
    """Go's string syntax."""
    return _ESCAPE.sub(_unescape, value[1:-1]) if value[:1] == '"' else value


def _unescape(match: re.Match[str], keep: str = "") -> str:
    code, letter = match[1] or match[2], match[3]
    if code:
        return chr(int(code, 16))
    return _CONTROLS.get(letter) or (letter if letter in _QUOTES else keep + letter)
