"""What is not tested is seen: where CI=true a skip is a failure, and a test of another processor does not exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import lacking

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
def test_skipped(): pytest.skip("no such device")
@pytest.mark.xfail(strict=True)
def test_expected(): assert False
@pytest.mark.machine("pdp11")
def test_elsewhere(): assert False
"""


@pytest.mark.parametrize(("ci", "status", "said"), [("true", 1, "1 failed, 1 deselected"), ("", 0, "1 skipped")])
def test_what_becomes_of_a_skip(tmp_path: Path, ci: str, status: int, said: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-p", "tests.conftest", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout
    assert said in done.stdout
    assert ("no such device" in done.stdout) is bool(ci)
    assert "1 xfailed" in done.stdout


def test_nothing_is_left_out_but_by_what_a_test_needs() -> None:
    """`tests.needs.lacking` is the one way, and fails where CI=true. An expected failure is a test of its own."""
    ways = re.compile(r"pytest\.(skip|xfail|importorskip)|mark\.(skip|xfail)|SkipTest")
    elsewhere = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in ("needs.py", Path(__file__).name)]
    assert elsewhere
    assert [str(path) for path in elsewhere if ways.search(path.read_text())] == []


@pytest.mark.parametrize(("ci", "kind"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_host_that_lacks_something(monkeypatch: pytest.MonkeyPatch, ci: str, kind: type[BaseException]) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(kind, match="no such device"):
        lacking("no such device")
