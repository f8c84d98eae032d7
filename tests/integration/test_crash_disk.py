"""Power cuts: a copy of the store's disk taken in the middle of a build opens, verifies and is built on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store

pytest_plugins = [FIXTURES, "tests.fakes.crash_fixtures"]


def test_a_power_cut(template: Store, tmp_path: Path) -> None:
    assert power_cuts(template, tmp_path, 1) == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thirty_power_cuts(template: Store, tmp_path: Path) -> None:
    assert power_cuts(template, tmp_path, 30) == 30


def power_cuts(template: Store, place: Path, count: int) -> int:
    """In a mount namespace of its own, so that no loop device stays behind, whatever happens."""
    program = [sys.executable, "-m", "tests.fakes.crash_disk"]
    arguments = [str(template.root), template.environment["HOME"], str(place), str(count)]
    command = ["unshare", "--mount", "--propagation", "slave", *program, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    devices = subprocess.run(["losetup", "--list", "--output", "BACK-FILE"], capture_output=True, text=True, check=True)
    assert str(place) not in devices.stdout
    return done.stdout.count("cut at")
