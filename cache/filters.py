"""What `du` and `prune` select: containerd's filters (`buildengine.filters`), and what docker and buildx write besides.

Fields: id, parents (joined with ;), description, type; inuse, mutable, immutable, shared, private are present or
not; until=24h (unused-for) holds for what was last used longer ago. Docker's "=" compares `id` by expression, others
as they are; a value that is missing is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from buildengine import filters as language
from buildengine.builder import UsageInfo
from buildengine.errors import UserError
from buildengine.filters import Selector
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


def parse(filters: Sequence[str], *, now: float) -> Matcher:
    """What any of `filters` selects; everything when there is none. Raises UserError."""
    return language.parse_with(filters, partial(_condition, now=now))


def _condition(selector: Selector, *, now: float) -> Matcher:
    field = ".".join(selector.path)
    if field in _AGES and selector.operator in ("", "=", "=="):
        return partial(_is_older, now - parse_duration(selector.value))
    if field not in _TEXTS and field not in _FLAGS:
        known = ", ".join([*_TEXTS, *_FLAGS, "until"])
        raise UserError(f"unknown filter field {field!r}", hint=f"the fields are {known}")
    operator = selector.operator
    if operator == "=":
        operator = "~=" if field == "id" else "=="
    holds = language.condition(replace(selector, operator=operator, value=selector.value or '""'))
    return lambda info: holds(partial(_look, info))


def _look(info: UsageInfo, path: tuple[str, ...]) -> str | None:
    (field,) = path
    if field in _FLAGS:
        return "" if _FLAGS[field](info) else None
    return _TEXTS[field](info) or None


def _is_older(cut_off: float, info: UsageInfo) -> bool:
    return (info.last_used or info.created) <= cut_off
