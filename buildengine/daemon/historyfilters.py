"""Which records `ListenBuildHistory` tells: containerd's filters over a record, and comparisons of times. Pure.

Fields: ref, status (running, completed, error, canceled), repository; startedAt and completedAt compared with a moment
(RFC 3339) or an age (`startedAt>=24h`: within the last day), duration with a duration.
Facts: BuildKit solver/llbsolver/history.go (parseFilter, timeBasedFilter, adaptHistoryRecord).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from buildengine import filters
from buildengine.errors import UserError
from buildengine.filters import Selector
from buildengine.history import BuildRecord
from buildengine.units import parse_duration
from llb import giturl

Matcher = Callable[[BuildRecord], bool]

_COMPARED = (("startedAt",), ("completedAt",), ("duration",))
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def parse(texts: Sequence[str], *, now: float) -> Matcher:
    """What any of the filters selects; everything when there is none. Raises UserError."""
    return filters.parse_with(texts, partial(_condition, now=now))


def _condition(selector: Selector, *, now: float) -> Matcher:
    if selector.path in _COMPARED and selector.operator in _COMPARE:
        return _comparison(selector.path[0], selector.operator, selector.value, now)
    holds = filters.condition(selector)
    return lambda record: holds(partial(_field, record))


def _comparison(name: str, sign: str, value: str, now: float) -> Matcher:
    compare = _COMPARE[sign]
    if name == "duration":
        wanted = parse_duration(value)
        return lambda record: compare(_duration(record), wanted)
    moment = _moment(value, now)
    if name == "startedAt":
        return lambda record: compare(int(record.created), int(moment))
    return lambda record: compare(int(record.completed or 0), int(moment))


def _duration(record: BuildRecord) -> float:
    return 0.0 if record.completed is None else record.completed - record.created


def _moment(value: str, now: float) -> float:
    try:
        return now - parse_duration(value)
    except UserError:
        pass
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        raise UserError(f"invalid time {value}", hint="an age like 24h, or a moment: 2026-08-01T12:00:00Z") from None


def _field(record: BuildRecord, path: tuple[str, ...]) -> str | None:
    match path:
        case ("ref",):
            return record.ref or None
        case ("status",):
            return status(record)
        case ("repository",):
            return record.options.get("vcs:source") or _remote(record.options.get("context", ""))
    return None


def status(record: BuildRecord) -> str:
    """How a build stands, in one word."""
    if record.completed is None:
        return "running"
    if record.failure is None:
        return "completed"
    return "canceled" if "context canceled" in record.failure.message else "error"


def _remote(context: str) -> str | None:
    """The repository, when the context is one."""
    try:
        return giturl.parse(context).remote if "://" in context or "@" in context else None
    except UserError:
        return None
