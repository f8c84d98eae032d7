"""Fixtures for builds that are killed. A test module asks for them with `pytest_plugins`, after those of builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builds import Store


@pytest.fixture(scope="session")
def template(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A state directory with the image `crash`, whose layers are blobs that nobody has unpacked yet."""
    place = tmp_path_factory.mktemp("crash")
    archive = place / "base.tar"
    other = store_with_base.copy(place / "other")
    other.command("image", "tag", "base", "crash")
    other.command("image", "save", "-o", archive, "crash")
    made = Store(place / "template", Path(other.environment["HOME"]))
    made.command("image", "load", "-i", archive)
    return made
