"""For pytest: the fixture `snapshot`, and `--update-snapshots`. In a project's pyproject.toml:

    [tool.pytest.ini_options]
    addopts = "-p frontends.testing.fixtures"

and in a test:

    def test_build(snapshot):
        snapshot(run(build, files=...))     # compared with snapshots/test_build.txt beside the test's file
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from frontends.testing import snapshots
from frontends.testing.trial import Built


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write what builds are now, in place of comparing")


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Callable[[Built], None]:
    """Compare a build with what it was when its snapshot was written. The first time it is written."""
    name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    file = Path(request.node.path).parent / "snapshots" / f"{name}.txt"

    def check(built: Built) -> None:
        snapshots.compare(built, file, update=request.config.getoption("--update-snapshots"))

    return check
