"""Whatever is killed, nothing of an emulated step is left either."""

from __future__ import annotations

import signal

import pytest

from tests.fakes.runtime_steps import Steps
from tests.integration.test_runtime_killed import engine, until
from worker.runtime import binfmt
from worker.runtime.runtime import open_runtime

pytest_plugins = ["tests.fakes.runtime_fixtures", "tests.fakes.emulation_fixtures"]
pytestmark = pytest.mark.timeout(300)  # the first one fetches packages


def test_engine_killed(arm64_steps: Steps) -> None:
    with engine("builtin", arm64_steps, "emulated") as it:
        assert it.leftovers()
        it.process.kill()
        it.process.wait()
        until(lambda: not it.leftovers())


def test_supervisor_killed(arm64_steps: Steps) -> None:
    with engine("builtin", arm64_steps, "emulated") as it:
        it.kill_supervisors()
        it.process.wait()
        assert it.process.returncode == 1
        until(lambda: not it.leftovers())


async def test_everything_of_ours_killed_at_once(arm64_steps: Steps) -> None:
    before = binfmt.entries()
    with engine("builtin", arm64_steps, "emulated") as it:
        it.kill_all_of_ours()
        async with open_runtime():
            until(lambda: not it.leftovers())
    assert binfmt.entries() == before


def test_interrupted(arm64_steps: Steps) -> None:
    with engine("builtin", arm64_steps, "emulated") as it:
        it.process.send_signal(signal.SIGINT)
        it.process.wait()
        assert not it.leftovers()
