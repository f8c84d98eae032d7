"""Told to stop, or left alone: Ctrl-C, SIGTERM, a terminal that closes; launcher, supervisor or step killed."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time

import pytest

from tests.builds import FIXTURES, PYBUILD, write
from tests.fakes import leftovers
from tests.fakes.crash_builds import SLEEPERS, NewSite, Site, send

pytest_plugins = [FIXTURES, "tests.fakes.crash_fixtures"]

AT_ONCE = 15.0  # seconds: tells a wait from none, also on a host that is ten times too busy (3 s were seen)
RUNTIMES = [
    "builtin",
    *(
        pytest.param(name, marks=marks)
        for name, marks in (("runc", ()), ("crun", pytest.mark.slow))
        if shutil.which(name)
    ),
]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_interrupted(new_site: NewSite, runtime: str) -> None:
    """Ctrl-C goes to the whole foreground process group."""
    site = new_site(runtime=runtime)
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True), start_new_session=True) as build:
            site.until_held(watch, build)
            os.killpg(build.process.pid, signal.SIGINT)
            started = time.monotonic()
            assert "Traceback" not in build.wait(status=130).error
        assert watch.found() == []  # it waited for the last of its processes
        assert time.monotonic() - started < AT_ONCE
        site.recover(watch)


def test_told_to_end(site: Site) -> None:
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as build:
            site.until_held(watch, build)
            build.process.terminate()
            build.wait(status=130)
        assert watch.found() == []
        site.recover(watch)


def test_interrupted_at_any_time(site: Site) -> None:
    """Whatever it is doing, it says nothing of its insides and leaves nothing, not even for the next to tidy up."""
    length = site.length()
    for number in range(3):
        site.vary(number + 1)
        with site.watched() as watch:
            with site.start(watch, *site.arguments(held=True)) as build:
                time.sleep(length * (number + 0.5) / 3)
                build.process.send_signal(signal.SIGINT)
                status = build.process.wait()
                assert "Traceback" not in build.wait(status=status).error
            assert status in (130, -signal.SIGINT)  # the signal itself while Python loads the program: 130 in a shell
            assert watch.found() == []
            assert site.strange_files() == []
    site.verify()


def test_terminal_closed(site: Site) -> None:
    """The kernel sends SIGHUP, and every write to the terminal fails."""
    with site.watched() as watch:
        terminal, theirs = pty.openpty()
        argv = [*site.arguments(held=True), "--progress", "tty"]
        command = ["setsid", "--ctty", "--wait", *watch.enclosed([str(PYBUILD), *argv])]
        environment = {**site.store.environment, "TERM": "xterm"}
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        assert leftovers.until(lambda: drained(terminal) and len(site.sleepers(watch)) == SLEEPERS)
        os.close(terminal)
        assert process.wait() in (130, 128 + signal.SIGHUP)
        site.recover(watch)


def drained(terminal: int) -> bool:
    """Read what is there, as a terminal would: a build that waits for it makes no progress."""
    os.set_blocking(terminal, False)
    try:
        while os.read(terminal, 65536):
            pass
    except BlockingIOError:
        pass
    return True


def test_nohup_is_heeded(site: Site) -> None:
    with site.watched() as watch:
        argv = ["nohup", *watch.enclosed([str(PYBUILD), *site.arguments(held=False)])]
        with (site.place / "go.log").open("wb") as log:
            build = subprocess.Popen(argv, env=site.store.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            assert leftovers.until(lambda: "vertex" in (site.place / "go.log").read_text())
            while build.poll() is None:
                build.send_signal(signal.SIGHUP)
                time.sleep(0.02)
        assert build.returncode == 0
        assert watch.remaining() == []


def test_interrupted_when_the_launcher_was_killed(site: Site) -> None:
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as build:
            site.until_held(watch, build)
            send(watch.named("pybuild-launch"), signal.SIGKILL)
            build.process.send_signal(signal.SIGINT)
            build.wait(status=130)
        site.recover(watch)


def test_supervisor_killed(site: Site) -> None:
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as build:
            site.until_held(watch, build)
            send(watch.named("pybuild-step"), signal.SIGKILL)
            assert "the process that supervised the step was killed" in build.wait(status=3).error
        site.recover(watch)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_step_killed(new_site: NewSite, runtime: str) -> None:
    site = new_site(runtime=runtime)
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as build:
            site.until_held(watch, build)
            send(site.step_processes(watch), signal.SIGKILL)
            assert "SIGKILL" in build.wait(status=1).error
        site.recover(watch)


def test_one_dies_and_the_other_goes_on(site: Site) -> None:
    """Two commands share their steps: when the one that runs them is killed, the other takes them over."""
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as first:
            site.until_held(watch, first)
            with site.start(watch, *site.arguments(held=False)) as second:
                second.until("cp /cache/log", "done", "cached")  # all but the held ones
                first.process.kill()
                first.process.wait()
                assert any("held-setid" in instruction for instruction in second.wait().ran)
        site.recover(watch)


@pytest.mark.parametrize("sharing", ["locked", "private"])
def test_a_cache_mount_stays_with_its_step(site: Site, sharing: str) -> None:
    """A step that outlives its engine for a moment still writes there: until its end nobody else does."""
    mounts = f"--mount=type=secret,id=go,mode=0444 --mount=type=cache,id=shop,target=/cache,sharing={sharing}"
    script = f"touch /cache/$(cat /run/secrets/go || echo held); [ -s /run/secrets/go ] || sleep {site.marker}"
    write(site.place / "context", {"Dockerfile": f"FROM crash\nRUN {mounts} {script}\n"})
    shops = site.store.root / "cachemounts"
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as first:
            assert leftovers.until(lambda: len(site.sleepers(watch)) == 1)
            helpers = [*watch.named("pybuild-launch"), *watch.named("pybuild-step")]
            send(helpers, signal.SIGSTOP)  # they would kill the step
            first.process.kill()
            with site.start(watch, *site.arguments(held=False)) as second:
                second.until("touch")
                entered = leftovers.until(lambda: bool(list(shops.glob("*/go"))), 10 if sharing == "private" else 0.4)
                assert entered == (sharing == "private")
                send(helpers, signal.SIGCONT)
                second.wait()
        assert len({path.parent for path in (*shops.glob("*/go"), *shops.glob("*/held"))}) == 1 + entered
        site.recover(watch)


# --- steps that do not want to end ---------------------------------------------------------------------------------

UNWILLING = {
    "leaves a daemon that holds its output open": "(setsid sleep {marker} &); exit 0",
    "leaves a stopped process": "sleep {marker} & kill -STOP $!",
    "closes its output and goes on in the background": "exec > /dev/null 2>&1; (trap '' TERM; sleep {marker}) & exit 0",
}


@pytest.mark.parametrize("script", UNWILLING.values(), ids=UNWILLING.keys())
def test_unwilling_step(site: Site, script: str) -> None:
    write(site.place / "context", {"Dockerfile": f"FROM crash\nRUN {script.format(marker=site.marker)}\n"})
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=False)) as build:
            build.wait()
        assert watch.found() == []


@pytest.mark.parametrize("victim", ["the command", "its supervisors"])
def test_own_place_for_control_groups(site: Site, victim: str) -> None:
    """--cgroup-parent: the parents that were made for it go too."""
    parent = f"crash-{site.marker}"
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True), "--cgroup-parent", f"{parent}/inner") as build:
            site.until_held(watch, build)
            assert groups_named(parent)
            send([build.process.pid] if victim == "the command" else watch.named("pybuild-step"), signal.SIGKILL)
            build.process.wait()
        assert leftovers.until(lambda: not groups_named(parent)), groups_named(parent)
        site.recover(watch)


def groups_named(name: str) -> list[str]:
    return [directory for directory, _, _ in os.walk("/sys/fs/cgroup") if name in directory.split("/")]


def test_out_of_memory(site: Site) -> None:
    write(site.place / "context", {"Dockerfile": f"FROM crash\nRUN : {site.marker}; tail -c 100000000 /dev/zero\n"})
    limit = {"PYBUILD_WORKER_STEP_MEMORY": "32MB"}
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=False), environment=limit) as build:
            assert "out of memory" in build.wait(status=1).error
        assert watch.found() == []
        assert site.strange_files() == []
