"""Symbolic and octal modes, against chmod(1) where the two agree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildengine.errors import UserError
from worker.layers.permissions import parse_mode


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("755", 0o600, 0o755),
        ("0", 0o777, 0),
        ("4711", 0o600, 0o4711),
        ("u+x", 0o644, 0o744),
        ("go-w", 0o666, 0o644),
        ("u+rwX,go-w", 0o666, 0o644),
        ("u+rwX,go-w", 0o766, 0o744),
        ("=r", 0o4777, 0o444),
        ("u=", 0o4700, 0),
        ("go=u-w", 0o751, 0o755),
        ("g=u", 0o2750, 0o2770),
        ("o=g", 0o751, 0o755),
        ("a+X", 0o644, 0o644),
        ("a+X", 0o645, 0o755),
        ("+s", 0o755, 0o6755),
        ("u+s,g+s", 0o755, 0o6755),
        ("o+s", 0o755, 0o755),
        ("+t", 0o755, 0o1755),
        ("o+t", 0o755, 0o755),
        ("-t", 0o1755, 0o755),
        ("=rw,+X", 0o711, 0o777),
        ("u+r-w=x", 0o600, 0o100),
        ("g+u", 0o740, 0o770),
        ("g-u", 0o470, 0o430),
        ("ug=rw,o=", 0o777, 0o660),
        ("+", 0o644, 0o644),
    ],
)
def test_a_file(text: str, before: int, after: int) -> None:
    assert parse_mode(text).apply(0o100000 | before, directory=False) == after


def test_directories_are_always_searchable_with_capital_x() -> None:
    change = parse_mode("u=rwX,go=rX")
    assert change.apply(0o600, directory=True) == 0o755
    assert change.apply(0o600, directory=False) == 0o644


@pytest.mark.parametrize("text", ["", "u", "u+q", "z+x", "888", "10000", "u+x,", ",u+x", "rwx", "u+x go-w", "-1", "٧٧"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(UserError, match="invalid mode"):
        parse_mode(text)


letters = st.text("rwxXst", max_size=3)
clauses = st.builds(
    "{}{}{}".format, st.text("ugoa", min_size=1, max_size=2), st.sampled_from("+-="), letters | st.sampled_from("ugo")
)


@given(text=st.lists(clauses, min_size=1, max_size=3).map(",".join), before=st.integers(0, 0o7777))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_as_chmod_does(text: str, before: int, tmp_path: Path) -> None:
    # chmod(1) of GNU knows `s` and `t` for other classes, and decides on X clause by clause.
    if any(char in text for char in "stX"):
        return
    path = tmp_path / "f"
    path.touch()
    path.chmod(before)
    subprocess.run(["chmod", "--", text, path], check=True)
    expected = os.stat(path).st_mode & 0o777
    assert parse_mode(text).apply(before, directory=False) & 0o777 == expected
