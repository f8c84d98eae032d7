"""Fixtures for tests that run steps. A test module asks for them with `pytest_plugins = [__name__ of this]`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes.runtime_steps import KINDS, Steps, make_rootfs
from worker.runtime import isolate
from worker.runtime.runtime import Kind, Runtime, open_runtime


@pytest.fixture(scope="session")
def busybox_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    isolate.private_mounts()
    return make_rootfs(tmp_path_factory.mktemp("rootfs") / "base")


@pytest.fixture(scope="session")
def many_layers() -> Iterator[list[str]]:
    """500 layers, in memory: each with a file of its own, and one that all have. Read-only by agreement."""
    isolate.private_mounts()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pybuild-test-") as directory:
        for number in range(500):
            os.mkdir(f"{directory}/l{number}")
            Path(f"{directory}/l{number}/f{number}").touch()
            Path(f"{directory}/l{number}/same").write_text(str(number))
        yield [f"{directory}/l{number}" for number in range(500)]


@pytest.fixture
def steps(busybox_base: Path, tmp_path: Path) -> Steps:
    return Steps(busybox_base, tmp_path)


@pytest.fixture
def bare_steps(busybox_base: Path, tmp_path: Path) -> Steps:
    """On a base without /proc, /sys, /dev, /etc/hosts and /etc/resolv.conf."""
    return Steps(make_rootfs(tmp_path / "bare", mount_points=False), tmp_path)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
async def runtime(kind: Kind) -> AsyncIterator[Runtime]:
    async with open_runtime(kind) as opened:
        yield opened


@pytest.fixture
async def builtin() -> AsyncIterator[Runtime]:
    async with open_runtime("builtin") as opened:
        yield opened
