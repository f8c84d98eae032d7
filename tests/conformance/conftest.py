"""These tests want a peer, so they run only where somebody names them: `make conformance PEER=DIRECTORY`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bases import docker_registry
from tests.conformance.sides import Sides, both_sides

_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass by, unless an argument of the command leads here. Then a missing peer is a failure."""
    named = (Path(argument.partition("::")[0]).absolute() for argument in config.args)
    return None if any(path.is_relative_to(_HERE) for path in named) else True


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Both daemons, for all tests of a run: what they have built stays in their caches."""
    with both_sides(tmp_path_factory.mktemp("sides")) as running:
        yield running
