"""Fixtures for whole builds. A test module asks for them with `pytest_plugins = [tests.builds.FIXTURES]`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.builds import Store, make_base
from worker.runtime import isolate


@pytest.fixture(scope="session")
def store_with_base(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A state directory that holds the image `base`. To be copied, not to be used."""
    isolate.private_mounts()
    work = tmp_path_factory.mktemp("base")
    (work / "home").mkdir()
    store = Store(work / "root", work / "home")
    trio.run(make_base, store, work / "context")
    return store


@pytest.fixture
def store(store_with_base: Store, tmp_path: Path) -> Store:
    """A state directory of the test's own, with the image `base` in it."""
    return store_with_base.copy(tmp_path / "root")


@pytest.fixture
def empty_store(tmp_path: Path) -> Store:
    """A state directory that does not exist yet."""
    isolate.private_mounts()
    (tmp_path / "home").mkdir()
    return Store(tmp_path / "root", tmp_path / "home")
