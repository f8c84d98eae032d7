"""Killed at any time: the command, a step, the helpers, all at once. One store takes all of it, one after the other."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.builds import FIXTURES, Command
from tests.fakes import leftovers
from tests.fakes.crash_builds import NewSite, Site, send

pytest_plugins = [FIXTURES, "tests.fakes.crash_fixtures"]


def test_at_ten_times(site: Site) -> None:
    kill(site, 10)


def test_at_three_times_with_runc(new_site: NewSite) -> None:
    kill(new_site(runtime="runc"), 3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("runtime", ["builtin", "runc"])
def test_at_fifty_times(new_site: NewSite, runtime: str) -> None:
    kill(new_site(runtime=runtime, thorough=True), 50)


def kill(site: Site, count: int) -> None:
    """`count` builds, each killed at its own time of a build's length, each ended by that."""
    length = site.length()
    for number in range(count):
        site.vary(number + 1)
        moment = length * (number + 0.5) / count
        way = WAYS[number % len(WAYS)]
        with site.watched() as watch:
            way(site, watch, moment)
            impatient = number // len(WAYS) % 2 == 1  # the next build begins while the last one is still dying
            site.recover(watch, at_once=way is not all_of_ours and not impatient)


def command(site: Site, watch: leftovers.Watch, moment: float) -> None:
    """A build that would end. When it has ended before the signal came, kill the next one earlier."""
    while True:
        with site.start(watch, *site.arguments(held=False)) as build:
            if not ended_within(build, moment):
                build.process.kill()
            if build.process.wait() == -signal.SIGKILL:
                return
            build.wait()
        site.vary(0)
        moment *= 0.8


def command_that_waits(site: Site, watch: leftovers.Watch, moment: float) -> None:
    """A build with a step that does not end."""
    with site.start(watch, *site.arguments(held=True)) as build:
        assert not ended_within(build, moment)
        build.process.kill()
        build.wait(status=-signal.SIGKILL)


def step(site: Site, watch: leftovers.Watch, moment: float) -> None:
    """All processes of the held steps, as the kernel's out-of-memory killer does."""
    with site.start(watch, *site.arguments(held=True)) as build:
        assert not ended_within(build, moment)
        assert leftovers.until(lambda: bool(site.step_processes(watch)))
        while build.process.poll() is None:
            send(site.step_processes(watch), signal.SIGKILL)
        build.wait(status=1)


def supervisors(site: Site, watch: leftovers.Watch, moment: float) -> None:
    with site.start(watch, *site.arguments(held=True)) as build:
        assert not ended_within(build, moment)
        while build.process.poll() is None:
            send(watch.named("pybuild-step"), signal.SIGKILL)
        build.wait(status=3)


def launcher_and_command(site: Site, watch: leftovers.Watch, moment: float) -> None:
    with site.start(watch, *site.arguments(held=True)) as build:
        assert not ended_within(build, moment)
        named = watch.named("pybuild-launch")  # a fork of it too, until that has named itself a supervisor
        send([pid for pid in named if leftovers.parent(pid) == build.process.pid], signal.SIGKILL)
        build.process.kill()
        build.wait(status=-signal.SIGKILL)


def all_of_ours(site: Site, watch: leftovers.Watch, moment: float) -> None:
    """Only the kernel is left to act, and where a set-id program made it forget, the next engine."""
    with site.start(watch, *site.arguments(held=True)) as build:
        assert not ended_within(build, moment)
        victims = [build.process.pid, *watch.named("pybuild-launch"), *watch.named("pybuild-step")]
        send(victims, signal.SIGSTOP)
        send(victims, signal.SIGKILL)
        build.wait(status=-signal.SIGKILL)


WAYS: tuple[Callable[[Site, leftovers.Watch, float], None], ...] = (
    *(command, command_that_waits, step, command, supervisors),
    *(command_that_waits, launcher_and_command, command, step, all_of_ours),
)


def ended_within(build: Command, moment: float) -> bool:
    try:
        build.process.wait(moment)
    except subprocess.TimeoutExpired:
        return False
    return True
