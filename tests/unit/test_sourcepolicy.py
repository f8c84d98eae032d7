"""Source policies on values: who is denied, what becomes of a source, and that it always comes to an end."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.errors import UserError
from buildengine.sourcepolicy import (
    Action,
    Condition,
    Constraint,
    MatchType,
    Policy,
    Rule,
    Selector,
    Source,
    SourceDenied,
    Update,
    evaluate,
    parse,
    stars,
)

ALPINE = "docker-image://docker.io/library/alpine:3.20"


def deny(identifier: str, kind: MatchType = MatchType.WILDCARD, *constraints: Constraint) -> Rule:
    selector = Selector(identifier=identifier, match_type=kind, constraints=constraints)
    return Rule(action=Action.DENY, selector=selector)


def allow(identifier: str) -> Rule:
    return Rule(action=Action.ALLOW, selector=Selector(identifier=identifier))


def convert(identifier: str, to: str, kind: MatchType = MatchType.WILDCARD, **attrs: str) -> Rule:
    selector = Selector(identifier=identifier, match_type=kind)
    named = {name.replace("_", "."): value for name, value in attrs.items()}
    return Rule(action=Action.CONVERT, selector=selector, update=Update(identifier=to, attrs=named))


def policy(*rules: Rule) -> Policy:
    return Policy(rules=rules)


def become(identifier: str, *rules: Rule, **attrs: str) -> Source:
    return evaluate([policy(*rules)], Source(identifier=identifier, attrs=attrs))


@pytest.mark.parametrize(
    ("rules", "denied"),
    [
        ([deny("*"), allow("docker-image://*")], False),
        ([allow("docker-image://*"), deny("*")], True),
        ([deny("docker-image://*:latest")], False),
        ([deny(ALPINE, MatchType.EXACT)], True),
        ([deny("docker-image://docker.io/library/alpine", MatchType.EXACT)], False),
        ([deny("alpine:3[.][0-9]+$", MatchType.REGEX)], True),
        ([], False),
    ],
)
def test_the_last_rule_that_matches_decides(rules: list[Rule], denied: bool) -> None:
    if denied:
        with pytest.raises(SourceDenied, match=f'source "{ALPINE}" denied by policy: source denied by policy'):
            become(ALPINE, *rules)
    else:
        assert become(ALPINE, *rules).identifier == ALPINE


@pytest.mark.parametrize(
    ("constraint", "denied"),
    [
        (Constraint(key="git.ref", value="v1"), True),
        (Constraint(key="git.ref", value="v1", condition=Condition.NOTEQUAL), False),
        (Constraint(key="git.ref", value="^v[0-9]$", condition=Condition.MATCHES), True),
        (Constraint(key="absent", value="", condition=Condition.EQUAL), True),
    ],
)
def test_attributes_can_be_asked_for(constraint: Constraint, denied: bool) -> None:
    source = Source(identifier="git://x", attrs={"git.ref": "v1"})
    rules = [policy(deny("*", MatchType.WILDCARD, constraint))]
    if denied:
        with pytest.raises(SourceDenied):
            evaluate(rules, source)
    else:
        assert evaluate(rules, source) is source


@pytest.mark.parametrize(
    ("rule", "identifier"),
    [
        (convert("docker-image://docker.io/*:*", "docker-image://m.org/$1:${2}-x"), "m.org/library/alpine:3.20-x"),
        (convert("docker-image://docker.io/*", "docker-image://m/$1x$$$9"), "m/$"),
        (convert(r"docker\.io/library/(?P<name>\w+)", "m/${name}", MatchType.REGEX), "m/alpine:3.20"),
        (convert(ALPINE, "docker-image://elsewhere", MatchType.EXACT), "docker.io/library/alpine:3.20"),
        (convert(ALPINE, ""), "docker.io/library/alpine:3.20"),
    ],
)  # fmt: skip
def test_a_source_becomes_another(rule: Rule, identifier: str) -> None:
    assert become(ALPINE, rule, deny("other")).identifier == f"docker-image://{identifier}"


def test_attributes_are_set_and_the_rules_are_tried_again() -> None:
    pinned = convert("https://a/f", "", http_checksum="sha256:1")
    assert become("https://a/f", pinned, x="y") == Source(
        identifier="https://a/f", attrs={"x": "y", "http.checksum": "sha256:1"}
    )
    with pytest.raises(SourceDenied, match="https://b/f"):
        become("https://a/f", convert("https://a/*", "https://b/$1"), deny("https://b/*"))
    moved = become(
        ALPINE, deny("*"), allow("docker-image://ours*"), convert("docker-image://docker.io/*", "docker-image://ours")
    )
    assert moved.identifier == "docker-image://ours"


def test_the_first_policy_with_something_to_say_is_heard() -> None:
    policies = [policy(allow("*")), policy(deny("*")), policy(convert("*", "x"))]
    with pytest.raises(SourceDenied):
        evaluate(policies, Source(identifier="a"))
    assert evaluate([policies[2], policies[0]], Source(identifier="a")).identifier == "x"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (convert("a*", "a${1}a"), "too many mutations on a single source"),
        (Rule(action=Action.CONVERT, selector=Selector(identifier="a")), "missing destination for convert rule"),
        (deny("a**"), r'invalid wildcard: "\*\*"'),
        (deny("(", MatchType.REGEX), r"^error matching source policy: error parsing regexp: missing closing \): `\(`$"),
        (
            deny("*", MatchType.WILDCARD, Constraint(key="k", value="(?=x)", condition=Condition.MATCHES)),
            r'invalid regex "\(\?=x\)": error parsing regexp: invalid or unsupported Perl syntax: `\(\?=`$',
        ),
        (convert("*", "x" * 8193), "an identifier of 8193 characters"),
        (deny("x" * 8193 + "y", MatchType.REGEX), "expression too large"),
    ],
)
def test_rules_that_cannot_be_meant(rule: Rule, said: str) -> None:
    with pytest.raises(UserError, match=said):
        become("a", rule)


@given(st.text("ab*", max_size=8).filter(lambda pattern: "**" not in pattern), st.text("ab", max_size=10))
def test_stars_are_those_of_a_greedy_expression(pattern: str, text: str) -> None:
    found = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), text)
    assert stars(pattern, text) == (None if found is None else found.groups())


def test_a_hostile_expression_costs_nothing() -> None:
    source = Source(identifier="x" * 8192, attrs={"k": "x" * 8192})
    backtracking = Constraint(key="k", value="(x+x+)+y", condition=Condition.MATCHES)
    rules = [policy(deny("(x|x)*y", MatchType.REGEX), deny("*", MatchType.WILDCARD, backtracking))]
    assert evaluate(rules, source) is source


def test_a_hostile_wildcard_costs_nothing() -> None:
    assert stars("*a" * 2000 + "b", "a" * 10_000) is None


_RULES = st.builds(
    Rule,
    action=st.sampled_from(Action),
    selector=st.builds(Selector, identifier=st.text("ab*", max_size=4), match_type=st.sampled_from(MatchType)),
    update=st.builds(Update, identifier=st.text("ab$1", max_size=5)),
)


@given(st.lists(_RULES, max_size=5), st.text("ab", max_size=5))
def test_what_comes_out_is_allowed_and_stays(rules: list[Rule], identifier: str) -> None:
    """It is denied, or comes to an end that the same policy leaves as it is."""
    try:
        settled = become(identifier, *rules)
    except UserError:
        return
    assert become(settled.identifier, *rules) == settled


def test_a_file() -> None:
    document = {
        "version": 1,
        "rules": [
            {
                "action": "CONVERT",
                "selector": {"identifier": "a*", "match_type": "REGEX", "constraints": [{"key": "k", "condition": 1}]},
                "updates": {"identifier": "b", "attrs": {"x": "y"}},
            },
            {"selector": {"identifier": "c", "matchType": "EXACT"}},
        ],
    }
    first, second = parse(json.dumps(document).encode(), what="policy.json").rules
    constraint = Constraint(key="k", value="", condition=Condition.NOTEQUAL)
    assert first.selector == Selector(identifier="a*", match_type=MatchType.REGEX, constraints=(constraint,))
    assert (first.action, first.update) == (Action.CONVERT, Update(identifier="b", attrs={"x": "y"}))
    assert second == Rule(action=Action.ALLOW, selector=Selector(identifier="c", match_type=MatchType.EXACT))


@pytest.mark.parametrize("text", ["[]", "{", '{"rules": [{}]}', '{"rules": [{"action": "NO", "selector": {}}]}'])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(UserError, match=r"policy\.json"):
        parse(text.encode(), what="policy.json")
