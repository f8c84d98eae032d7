"""Fixtures for logins: a registry that asks who is there, and a user. For `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.commands import Commands, open_commands
from tests.fakes.docker_home import Home
from tests.integration.test_registry_docker import HASH, Built, DockerRegistry


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets in `user` with `secret`."""
    directory = tmp_path_factory.mktemp("registry")
    (directory / "htpasswd").write_text(f"user:{HASH}\n")
    access = {"htpasswd": {"realm": "here", "path": str(directory / "htpasswd")}}
    running = DockerRegistry(directory / "state", auth=access)
    source = Built(size=10).write(directory / "oci", "docker.io/library/app:1")
    running.push(f"oci:{source}:1", "app:1", "--dest-creds=user:secret")
    yield running.host
    running.stop()


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with open_commands() as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, commands: Commands) -> Home:
    return Home(tmp_path, commands)
