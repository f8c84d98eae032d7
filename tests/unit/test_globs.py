"""Go's path.Match for one name: what matches, what is an error, and that nothing takes for ever."""

from __future__ import annotations

import time

import pytest

from buildengine.errors import UserError
from llb.globs import has_wildcard, name_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "anything", True),
        ("a*b", "ab", True),
        ("a*b", "a-b-b", True),
        ("a*b", "abc", False),
        ("?", "x", True),
        ("?", "", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        (r"\*", "*", True),
        (r"\*", "x", False),
        ("*.go", "main.go", True),
        ("**", "x", True),
    ],
)
def test_matching(pattern: str, name: str, matches: bool) -> None:
    assert bool(name_pattern(pattern).fullmatch(name)) is matches


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]x[", "a\\", "[z-a]"])
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(UserError):
        name_pattern(pattern)


def test_many_stars_do_not_backtrack() -> None:
    started = time.process_time()
    assert name_pattern("*a" * 20 + "*b").fullmatch("a" * 250) is None
    assert time.process_time() - started < 1


def test_what_has_a_wildcard() -> None:
    assert has_wildcard("a*")
    assert has_wildcard("[a]")
    assert not has_wildcard(r"a\*")
    assert not has_wildcard("plain/path")
