"""Fixtures for attacks. A test module asks for them with `pytest_plugins = ["tests.fakes.hostile_fixtures"]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import write
from tests.fakes.commands import Commands, open_commands
from tests.fakes.hostile import Attack
from tests.fakes.runtime_steps import make_rootfs


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with open_commands() as opened:
        yield opened


@pytest.fixture(scope="session")
def attacked_root(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with the image `base`: busybox, the users root and builder, group-less."""
    work = tmp_path_factory.mktemp("attacked")
    context = write(work / "context", {"Dockerfile": 'FROM scratch\nCOPY rootfs /\nCMD ["sh"]\n'})
    make_rootfs(context / "rootfs")
    ended = commands.run("--root", work / "root", "build", "-t", "base", context)
    assert ended.status == 0, ended.text
    return work / "root"


@pytest.fixture
def attack(commands: Commands, attacked_root: Path, tmp_path: Path) -> Attack:
    return Attack(commands=commands, root=attacked_root, directory=tmp_path, canary=tmp_path / "canary")
