"""Wildcards in one name: Go's own cases, agreement with a plain translation, bad syntax, speed on hostile ones."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildengine.errors import UserError
from llb.globs import has_wildcard, name_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [  # path/match_test.go, what has no slash
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*", "", True),
        ("**", "abc", True),
        ("?", "", False),
        ("*.go", "main.go", True),
        ("a*b", "a-b-b", True),
        ("a*b", "abc", False),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "abc", True),
        ("a*b*c*d*e*", "axbxcxdxe", True),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "ab", False),
        ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True),
        ("a???b", "a☺b", False),
        ("[a-ζ]*", "α", True),
        ("*[a-ζ]", "A", False),
        (r"[\]a]", "]", True),
        (r"[\-]", "-", True),
        (r"[x\-]", "x", True),
        (r"[x\-]", "z", False),
        (r"[\-x]", "-", True),
        ("*x", "xxx", True),
        ("*ab*ab", "xabyabab", True),
        ("a*", "a\nb", True),
        ("?", "\n", True),
        ("*\udc80", "x\udc80", True),
    ],
)
def test_one_pattern(pattern: str, name: str, expected: bool) -> None:
    assert (name_pattern(pattern).fullmatch(name) is not None) is expected


@pytest.mark.parametrize(
    "pattern", ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "[z-a]", "x\\", "[\\", "[a-\\"]
)
def test_bad_syntax_is_a_user_error(pattern: str) -> None:
    with pytest.raises(UserError, match="pattern") as caught:
        name_pattern(pattern)
    assert caught.value.hint


def test_what_has_a_wildcard() -> None:
    assert all(map(has_wildcard, ["*", "a?", "[a]", r"\\*", r"\a*"]))
    assert not any(map(has_wildcard, ["", "a", r"\*", r"a\?b", r"\\\[", "]"]))


@settings(max_examples=300)
@given(st.text("ab*?", max_size=9), st.text("ab", max_size=9))
def test_agrees_with_the_plain_translation(pattern: str, name: str) -> None:
    plain = pattern.replace("*", ".*").replace("?", ".")
    assert (name_pattern(pattern).fullmatch(name) is None) is (re.fullmatch(plain, name) is None)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*b", "*a" * 60 + "b", "*?" * 60 + "b", "*[a-b]" * 60 + "c"])
def test_no_pattern_takes_long(pattern: str) -> None:
    begin = time.process_time()
    assert name_pattern(pattern).fullmatch("a" * 250) is None
    assert time.process_time() - begin < 0.5


def test_what_no_name_is_as_long_as() -> None:
    with pytest.raises(UserError, match="more than 4096 characters"):
        name_pattern("?" * 10_000_000)
