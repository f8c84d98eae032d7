"""What is not tested is seen: a test that is left out fails, and one of another processor does not exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import lacking

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("way", ["skip", "xfail"])
def test_a_test_that_is_left_out_fails(tmp_path: Path, way: str) -> None:
    (tmp_path / "test_it.py").write_text(f"""
import pytest
def test_called(): pytest.{way}("no such device")
@pytest.mark.{way}(reason="no such device")
def test_marked(): assert False
@pytest.mark.machine("pdp11")
def test_elsewhere(): assert False
""")
    command = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-p", "tests.conftest", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "1 deselected" in done.stdout
    assert not re.search("passed|skipped|xfailed", done.stdout.splitlines()[-1])
    assert "all tests are wanted" in done.stdout


def test_no_module_is_left_out() -> None:
    """Nobody is asked when a whole module is."""
    ways = re.compile(r"pytest\.(skip|xfail|importorskip)|mark\.(skip|xfail)")
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert paths
    assert [str(path) for path in paths if ways.search(path.read_text())] == []


def test_a_host_that_lacks_something() -> None:
    with pytest.raises(pytest.fail.Exception, match="no such device"):
        lacking("no such device")
