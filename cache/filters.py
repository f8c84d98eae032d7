"""The filter language of `du` and `prune`: containerd's (pkg/filters), with what docker and buildx write besides.

    filter   := selector ("," selector)*          all of a filter's selectors must hold, and any of several filters
    selector := field [operator value]            without an operator: the field is present
    operator := "==" | "!=" | "~=" (regular expression) | "=" (docker's: `id` by expression, others equal)
    value    := word | "quoted" | |quoted| | /quoted/

Fields: id, parents (joined with ;), description, type; inuse, mutable, immutable, shared, private are present or
not; until=24h (unused-for) holds for what was last used longer ago.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from buildengine.builder import UsageInfo
from buildengine.errors import UserError
from buildengine.units import parse_duration

Matcher = Callable[[UsageInfo], bool]

_FLAGS: dict[str, Callable[[UsageInfo], bool]] = {
    "inuse": lambda info: info.in_use,
    "mutable": lambda info: info.mutable,
    "immutable": lambda info: not info.mutable,
    "shared": lambda info: info.shared,
    "private": lambda info: not info.shared,
}
_TEXTS: dict[str, Callable[[UsageInfo], str]] = {
    "id": lambda info: info.id,
    "parents": lambda info: ";".join(info.parents),
    "description": lambda info: info.description,
    "type": lambda info: info.kind,
}
_AGES = ("until", "unused-for")

_SELECTOR = re.compile(
    r"""\s*(?P<field>[A-Za-z][\w-]*)\s*
    (?:(?P<operator>==|!=|~=|=(?!=))\s*
       (?P<value>"(?:[^"\\\n]|\\.)*"|\|(?:[^|\\\n]|\\.)*\||/(?:[^/\\\n]|\\.)*/|(?!")[^\s,]*))?
    \s*(?:,|\Z)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def parse(filters: Sequence[str], *, now: float) -> Matcher:
    """What any of `filters` selects; everything when there is none. Raises UserError."""
    parsed = [_parse(text, now) for text in filters if text.strip()]
    if not parsed:
        return lambda info: True
    return lambda info: any(all(holds(info) for holds in selectors) for selectors in parsed)


def _parse(text: str, now: float) -> list[Matcher]:
    selectors, position = [], 0
    while position < len(text):
        match = _SELECTOR.match(text, position)
        if match is None:
            raise UserError(
                f"invalid filter {text!r} near {text[position:]!r}",
                hint="a filter looks like type==regular, id~=^abc or inuse; several are joined with commas",
            )
        selectors.append(_selector(match["field"], match["operator"], match["value"] or "", now))
        position = match.end()
    return selectors


def _selector(field: str, operator: str | None, value: str, now: float) -> Matcher:
    if field in _AGES:
        return partial(_is_older, now - parse_duration(value))
    if field not in _TEXTS and field not in _FLAGS:
        known = ", ".join([*_TEXTS, *_FLAGS, "until"])
        raise UserError(f"unknown filter field {field!r}", hint=f"the fields are {known}")
    read = _TEXTS.get(field, _nothing)
    present = _FLAGS.get(field, read)
    if operator is None:
        return lambda info: bool(present(info))
    text = _unquoted(value, expression=operator == "~=")
    if operator == "~=" or (operator == "=" and field == "id"):
        expression = _compiled(text)
        return lambda info: expression.search(read(info)) is not None
    if operator == "!=":
        return lambda info: read(info) != text
    return lambda info: bool(present(info)) and read(info) == text


def _nothing(_info: UsageInfo) -> str:
    return ""


def _is_older(cut_off: float, info: UsageInfo) -> bool:
    return (info.last_used or info.created) <= cut_off


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"invalid regular expression {text!r} in a filter: {error}") from None


def _unquoted(value: str, *, expression: bool) -> str:
    """Go's string syntax; `|` and `/` quote expressions only, and there a backslash stays unless it must not."""
    quote = value[:1]
    if quote == '"' or (quote in ("|", "/") and expression and len(value) > 1 and value.endswith(quote)):
        return _ESCAPE.sub(_unescape, value[1:-1])
    return value


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    if code:
        return chr(int(code, 16))
    return _CONTROLS.get(match[3], match[3])
