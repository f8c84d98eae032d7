"""Expressions of clients: Go's syntax and answers, and no pattern that takes long."""

from __future__ import annotations

import pytest

from buildengine.errors import UserError
from buildengine.expressions import LONGEST, Expression


@pytest.mark.parametrize(
    ("expression", "text", "matches"),
    [
        (r"b\z", "ab", True),
        (r"^(?P<name>a)(?<more>b)$", "ab", True),
        (r"(?i)ALPINE", "alpine", True),
        (r"^\pL+$", "éa", True),
        (r"^\p{Greek}$", "a", False),
        (r"\Qa.b\E", "axb", False),
        (r"[[:alpha:]]+\d", "ab1", True),
        (r"^.$", "\n", False),
        ("$", "a\n", True),
        ("a$", "a\n", False),  # Python's would
        (r"^\w$", "é", False),
        ("(x+x+)+y", "x" * LONGEST, False),
        ("(?:a?){40}a{40}", "a" * 40, True),
        ("", "\udc80", True),
    ],
)
def test_they_mean_what_they_mean_in_go(expression: str, text: str, matches: bool) -> None:
    assert Expression(expression).matches(text) is matches


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("a(?=b)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<!a)b", "invalid or unsupported Perl syntax: `(?<!`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"a\Z", r"invalid escape sequence: `\Z`"),
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        (r"(\pL{100}){9}", r"expression too large: `(\pL{100}){9}`"),
        ("\udc80", "invalid UTF-8: `\udc80`"),
        ("a" * (LONGEST + 1), f"expression too large: `{'a' * 100}`"),
    ],
)
def test_a_mistake_is_told_in_gos_words(expression: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Expression(expression)
    assert caught.value.message == f"error parsing regexp: {said}"


@pytest.mark.parametrize(
    ("expression", "text", "replaced"),
    [
        ("a*", "baac", "<>b<aa>c<>"),  # Python has an empty match behind aa
        (r"\b", "ab cd", "<>ab<> <>cd<>"),
        ("(?P<x>b)|c", "abcé", "a<b><c>é"),
        ("x", "abc", "abc"),
    ],
)
def test_matches_are_replaced_as_by_go(expression: str, text: str, replaced: str) -> None:
    assert Expression(expression).replaced(text, lambda found: f"<{found.whole}>") == replaced


def test_what_is_found_has_its_groups() -> None:
    said = Expression("(?P<first>.)(x)?(.)").replaced(
        "éa", lambda found: "|".join((*found.groups, found.named["first"]))
    )
    assert said == "é||a|é"


def test_no_more_is_looked_at_than_can_be_in_time() -> None:
    with pytest.raises(UserError, match=f"no more than {LONGEST} characters"):
        Expression("a").matches("a" * (LONGEST + 1))
