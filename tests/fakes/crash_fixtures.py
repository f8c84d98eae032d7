"""Fixtures for builds that are killed. A test module asks for them with `pytest_plugins`, after those of builds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import Store
from tests.fakes.commands import Commands, open_commands
from tests.fakes.crash_builds import NewSite, Site


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


@pytest.fixture(scope="session")
def quick_commands() -> Iterator[Commands]:
    with open_commands() as opened:
        yield opened


@pytest.fixture
def new_site(template: Store, quick_commands: Commands, tmp_path: Path) -> NewSite:
    """Makes the one site of a test."""

    def make(**options: str | bool) -> Site:
        return Site(template, tmp_path, commands=quick_commands, **options)

    return make


@pytest.fixture
def site(new_site: NewSite) -> Site:
    return new_site()
