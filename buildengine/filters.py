"""containerd's filter language (pkg/filters) over any kind of thing: `id==x,labels."a.b"~=^y`. Pure.

    filter   := selector ("," selector)*          all of a filter's selectors must hold, and any of several filters
    selector := path [operator value]             without an operator: the field is present
    path     := name ("." name)*                  a name is a word, or quoted
    operator := "==" | "!=" | "~=" (regular expression)
    value    := word | quoted: "...", |...| or /.../ (the last two for expressions)

What the fields are is the business of whoever looks: a `Lookup` gives the text of a path, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from buildengine.errors import UserError

Lookup = Callable[[tuple[str, ...]], str | None]
Matcher = Callable[[Lookup], bool]

_NAME = r'(?:[A-Za-z_][\w-]*|"(?:[^"\\\n]|\\.)*")'
_SELECTOR = re.compile(
    rf"""\s*(?P<path>{_NAME}(?:\.{_NAME})*)\s*
    (?:(?P<operator>==|!=|~=)\s*
       (?P<value>"(?:[^"\\\n]|\\.)*"|\|(?:[^|\\\n]|\\.)*\||/(?:[^/\\\n]|\\.)*/|[^\s,"]+))?
    \s*(?:,|\Z)""",
    re.VERBOSE,
)
_WORDS = re.compile(_NAME)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def parse(filters: Sequence[str]) -> Matcher:
    """What any of `filters` selects; everything when there is none. Raises UserError."""
    parsed = [_parse(text) for text in filters if text.strip()]
    if not parsed:
        return lambda look: True
    return lambda look: any(all(holds(look) for holds in selectors) for selectors in parsed)


def _parse(text: str) -> list[Matcher]:
    selectors, position = [], 0
    while position < len(text):
        match = _SELECTOR.match(text, position)
        if match is None:
            raise UserError(
                f"invalid filter {text!r} near {text[position:]!r}",
                hint="a filter looks like name==value, name~=expression or name; several are joined with commas",
            )
        path = tuple(_unquoted(word) for word in _WORDS.findall(match["path"]))
        selectors.append(_selector(path, match["operator"], match["value"] or ""))
        position = match.end()
    return selectors


def _selector(path: tuple[str, ...], operator: str | None, value: str) -> Matcher:
    if operator is None:
        return lambda look: look(path) is not None
    if operator == "~=":
        expression = _compiled(value[1:-1] if value[:1] in ("|", "/") else _unquoted(value))
        return lambda look: expression.search(look(path) or "") is not None
    text = _unquoted(value)
    if operator == "!=":
        return lambda look: (look(path) or "") != text
    return lambda look: look(path) == text


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"invalid regular expression {text!r} in a filter: {error}") from None


def _unquoted(value: str) -> str:
    """Go's string syntax."""
    return _ESCAPE.sub(_unescape, value[1:-1]) if value[:1] == '"' else value


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else _CONTROLS.get(match[3], match[3])
