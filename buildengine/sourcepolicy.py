"""Source policies: rules about which sources a build may read, and what it reads in their place. Pure.

    {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://docker.io/*"}},
               {"action": "CONVERT", "selector": {"identifier": "docker-image://docker.io/library/alpine:*"},
                "updates": {"identifier": "docker-image://mirror.example/alpine:$1"}}]}

Rules are tried in order. The last that matches allows or denies; one that converts, and changes something by it, ends
the round, and all are tried again on what has come of it. Of several policies the first that denies or converts is
heard.

Facts: BuildKit sourcepolicy/{engine,matcher,mutate,formatter}.go, util/wildcard. So a selector without `match_type`
matches the identifier itself, or as a wildcard; and a conversion by an EXACT selector changes attributes only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from buildengine.errors import UserError
from buildengine.expressions import LONGEST, Expression, Found
from buildengine.values import dataclass

_ROUNDS = 20
_VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)


class SourceDenied(UserError):
    """No policy may be got round: this ends the build."""


class Action(Enum):
    ALLOW = 0
    DENY = 1
    CONVERT = 2


class MatchType(Enum):
    WILDCARD = 0
    EXACT = 1
    REGEX = 2


class Condition(Enum):
    EQUAL = 0
    NOTEQUAL = 1
    MATCHES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """About one attribute; one that a source has not is "". The value of MATCHES is a regular expression."""

    key: str
    value: str
    condition: Condition = Condition.EQUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    identifier: str
    match_type: MatchType = MatchType.WILDCARD
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a source becomes. `identifier` "" is that of the selector; `$1` is its first `*`, or the first group."""

    identifier: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    action: Action
    selector: Selector
    update: Update | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source as policies see it."""

    identifier: str
    attrs: Mapping[str, str] = field(default_factory=dict)


def evaluate(policies: Sequence[Policy], source: Source, before_each: Callable[[], None] = lambda: None) -> Source:
    """What is to be read in the place of `source`. Raises SourceDenied; UserError for a rule that cannot be meant.

    A policy of many rules with expressions takes long. `before_each` is called before each rule, and may raise.
    """
    for _ in range(_ROUNDS + 1):
        changed = _round(policies, source, before_each)
        if changed == source:
            return source
        source = changed
    raise UserError("too many mutations on a single source: too many operations", hint="the rules go round in circles")


def _round(policies: Sequence[Policy], source: Source, before_each: Callable[[], None]) -> Source:
    for policy in policies:
        changed = _apply(policy, source, before_each)
        if changed != source:
            return changed
    return source


def _apply(policy: Policy, source: Source, before_each: Callable[[], None]) -> Source:
    denied = False
    for rule in policy.rules:
        before_each()
        if not _matches(rule.selector, source):
            continue
        if rule.action is Action.CONVERT:
            changed = _converted(rule, source)
            if changed != source:
                return changed
        else:
            denied = rule.action is Action.DENY
    if denied:
        raise SourceDenied(f'source "{source.identifier}" denied by policy: source denied by policy')
    return source


def _matches(selector: Selector, source: Source) -> bool:
    if not all(_holds(constraint, source.attrs.get(constraint.key, "")) for constraint in selector.constraints):
        return False
    if selector.identifier == source.identifier:
        return True
    match selector.match_type:
        case MatchType.EXACT:
            return False
        case MatchType.REGEX:
            with about("error matching source policy"):
                return Expression(selector.identifier).matches(source.identifier)
        case MatchType.WILDCARD:
            return stars(selector.identifier, source.identifier) is not None


def _holds(constraint: Constraint, value: str) -> bool:
    match constraint.condition:
        case Condition.EQUAL:
            return value == constraint.value
        case Condition.NOTEQUAL:
            return value != constraint.value
        case Condition.MATCHES:
            with about(f'error matching source policy: invalid regex "{constraint.value[:LONGEST]}"'):
                return Expression(constraint.value).matches(value)


def _converted(rule: Rule, source: Source) -> Source:
    if rule.update is None:
        raise UserError("error mutating source policy: missing destination for convert rule")
    identifier = _formatted(rule.selector, source.identifier, rule.update.identifier or rule.selector.identifier)
    if len(identifier) > LONGEST:  # each round may double it
        raise UserError(f"a source policy makes an identifier of {len(identifier)} characters", hint=identifier[:200])
    return replace(source, identifier=identifier or source.identifier, attrs={**source.attrs, **rule.update.attrs})


def _formatted(selector: Selector, identifier: str, template: str) -> str:
    if len(template) > LONGEST:
        raise UserError(f"a source policy has an identifier of {len(template)} characters")
    match selector.match_type:
        case MatchType.EXACT:
            return selector.identifier
        case MatchType.REGEX:
            with about("error mutating source policy: error formatting destination"):
                return Expression(selector.identifier).replaced(identifier, partial(_expanded, template))
        case MatchType.WILDCARD:
            taken = stars(selector.identifier, identifier)
            if taken is None:
                return identifier
            return _expanded(template, Found(whole=identifier, groups=taken, named={}))


def _expanded(template: str, found: Found) -> str:
    """`$1`, `${1}`, `$name`, `$$`, as Go's regexp.Expand has them: a name is as long as it can be, and one that nothing
    has is ""."""

    def one(variable: re.Match[str]) -> str:
        name = variable[1] or variable[2]
        if name is None:
            return "$"
        if not name.isdigit():
            return found.named.get(name, "")
        return dict(enumerate((found.whole, *found.groups))).get(int(name[:9]), "")

    return _VARIABLE.sub(one, template)


def stars(pattern: str, text: str) -> tuple[str, ...] | None:
    """What each `*` of the pattern stands for in `text`, the first of them for as much as it can; None: no match.

    So all that is between them lies as far right as it can. Raises UserError for `**`.
    """
    if "**" in pattern:
        raise UserError(f'failed to translate wildcard "{pattern}" to regexp: invalid wildcard: "**"')
    first, *parts = pattern.split("*")
    if not parts:
        return () if pattern == text else None
    end = len(text) - len(parts[-1])
    if end < len(first) or not text.startswith(first) or not text.endswith(parts[-1]):
        return None
    taken = []
    for part in reversed(parts[:-1]):
        start = text.rfind(part, len(first), end)
        if start < 0:
            return None
        taken.append(text[start + len(part) : end])
        end = start
    taken.append(text[len(first) : end])
    return tuple(reversed(taken))


@contextmanager
def about(what: str) -> Iterator[None]:
    """What was done, before the message of what is wrong with it."""
    try:
        yield
    except UserError as error:
        error.message = f"{what}: {error.message}"
        raise


# --- as a file -------------------------------------------------------------------------------------------------------

_E = TypeVar("_E", bound=Enum)


def parse(data: bytes, *, what: str) -> Policy:
    """The policy that a JSON document describes, under BuildKit's names. Raises UserError."""
    try:
        document = json.loads(data)
        return Policy(rules=tuple(_rule(rule) for rule in document.get("rules") or ()))
    except UserError as error:
        raise UserError(f"{what}: {error.message}", hint=error.hint) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{what} is not a source policy: {error}", hint='it is JSON: {"rules": [...]}') from error


def _rule(document: Any) -> Rule:
    selector, update = document.get("selector"), document.get("updates")
    if selector is None:
        raise UserError("invalid nil selector in policy", hint='a rule has a "selector" with an "identifier"')
    return Rule(
        action=_enum(Action, document.get("action", 0)),
        selector=Selector(
            identifier=_text(selector.get("identifier", "")),
            match_type=_enum(MatchType, selector.get("match_type", selector.get("matchType", 0))),
            constraints=tuple(_constraint(each) for each in selector.get("constraints") or ()),
        ),
        update=None if update is None else _update(update),
    )


def _update(document: Any) -> Update:
    attrs = {_text(name): _text(value) for name, value in (document.get("attrs") or {}).items()}
    return Update(identifier=_text(document.get("identifier", "")), attrs=attrs)


def _constraint(document: Any) -> Constraint:
    return Constraint(
        key=_text(document.get("key", "")),
        value=_text(document.get("value", "")),
        condition=_enum(Condition, document.get("condition", 0)),
    )


def _enum(kind: type[_E], value: Any) -> _E:
    """By name or by number."""
    for member in kind:
        if value in (member.name, member.value) and not isinstance(value, bool):
            return member
    raise UserError(f"{value!r} is not one of {', '.join(member.name for member in kind)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{value!r} is not a string")
    return value
