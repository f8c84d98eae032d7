"""What somebody else wrote is read in time that grows as its length does.

A text here is so long that a regular expression which tries again from each of its characters would take minutes, and
the test's own limit end it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from buildengine import units
from buildengine.cli.progress import lines as output
from buildengine.errors import UserError
from frontends.dockerfile import directives, lines, notation
from worker.explain import secrecy

LONG = 1 << 20


@pytest.mark.parametrize("text", ["1" * LONG, "1." * LONG, "." + "1" * LONG, "1s" * LONG + "!"])
@pytest.mark.parametrize(("read", "error"), [(units.parse_duration, UserError), (notation.duration, ValueError)])
def test_durations(read: Callable[[str], float], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match="duration"):
        read(text)


def test_durations_that_are_good() -> None:
    assert units.parse_duration("1m" * LONG) == 60 * LONG
    assert notation.duration("1m" * 1000) == notation.duration("60000s")


def test_directives() -> None:
    blanks = " \t" * LONG
    found = directives.find(f"# syntax={blanks}a{blanks}b{blanks}".encode(), "syntax")
    assert found is not None
    assert found.value == f"a{blanks}b"
    assert directives.find(f"# syntax{blanks}x=a".encode(), "syntax") is None


def test_heredocs() -> None:
    assert lines.heredoc("<<" + "\t" * LONG + "<x") is None
    assert lines.heredoc("1" * LONG) is None


def test_what_a_terminal_shows() -> None:
    assert output.safe(" " * LONG + "\0" + "\n \r\n" * LONG + "a  b") == " " * LONG + " " + "a  b"


@pytest.mark.parametrize("text", ["x" * LONG, "a-" * LONG, "a--" * LONG, "a." * LONG, "a://" * LONG, "a " * LONG])
def test_what_may_be_a_secret(text: str) -> None:
    assert secrecy.shown(f"{text} --token=s https://me:s@host") == f"{text} --token=*** https://***@host"
