"""Whatever is killed, and however, nothing of a step is left: no process, no mount, no control group."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.errors import HostError
from cache.overlay import TreeMount
from tests.fakes.runtime_steps import PATH, Steps, control_groups, processes_with
from tests.needs import lacking
from worker.runtime import sweep
from worker.runtime.runtime import Kind, Runtime, open_runtime

pytest_plugins = ["tests.fakes.runtime_fixtures"]


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def family(pid: int) -> list[int]:
    return [pid, *(member for child in children(pid) for member in family(child))]


def named(pid: int, name: str) -> list[int]:
    return [member for member in family(pid) if comm(member) == name]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended
        return ""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


class Engine:
    def __init__(self, process: subprocess.Popen[bytes], marker: str, scratch: Path) -> None:
        self.process = process
        self.marker = marker
        self.scratch = scratch
        self.owner = sweep.owner(process.pid)

    def kill_supervisors(self) -> None:
        for pid in named(self.process.pid, "pybuild-step"):
            with suppress(ProcessLookupError):  # one that waited for its request ends with its supervisor
                os.kill(pid, signal.SIGKILL)

    def kill_all_of_ours(self) -> None:
        """At once: nobody sees another one die."""
        pid = self.process.pid
        ours = [pid, *named(pid, "pybuild-launch"), *named(pid, "pybuild-step")]
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            for each in ours:
                os.kill(each, sent)
        self.process.wait()

    def leftovers(self) -> list[str]:
        found = [f"process {pid}" for pid in processes_with(self.marker)]
        found += control_groups(self.owner)
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and str(self.scratch) in Path(f"/proc/{entry}/mountinfo").read_text():
                    found.append(f"mount of {entry}")
            except OSError:
                continue
        return found


@contextmanager
def engine(kind: Kind, steps: Steps, who: str) -> Iterator[Engine]:
    """An engine of its own with one step that runs."""
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    argv = [sys.executable, "-m", "tests.fakes.runtime_engine", kind, str(steps.base), str(steps.scratch), marker, who]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout
    try:
        assert process.stdout.readline() == b"ready\n"
        yield Engine(process, marker, steps.scratch)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("who", ["root", "set-id"])
async def test_engine_killed(kind: Kind, steps: Steps, who: str) -> None:
    with engine(kind, steps, who) as it:
        assert it.leftovers()
        it.process.kill()
        it.process.wait()
        until(lambda: not it.leftovers())


@pytest.mark.parametrize("who", ["root", "set-id"])
async def test_supervisor_killed(kind: Kind, steps: Steps, who: str) -> None:
    with engine(kind, steps, who) as it:
        it.kill_supervisors()
        it.process.wait()  # its run() raises
        assert it.process.returncode == 1
        until(lambda: not it.leftovers())


@pytest.mark.parametrize("who", ["root", "set-id"])
async def test_everything_of_ours_killed_at_once(kind: Kind, steps: Steps, who: str) -> None:
    """Only the kernel is left to act, and where a set-id program made it forget, the next engine."""
    with engine(kind, steps, who) as it:
        it.kill_all_of_ours()
        async with open_runtime():
            until(lambda: not it.leftovers())


async def test_interrupt_reaches_the_engine_only(steps: Steps) -> None:
    with engine("builtin", steps, "root") as it:
        assert len({os.getsid(pid) for pid in (it.process.pid, *named(it.process.pid, "pybuild-launch"))}) == 2
        it.process.send_signal(signal.SIGINT)
        it.process.wait()
        assert not it.leftovers()  # it waited until all was gone


async def test_launcher_killed(steps: Steps) -> None:
    """Steps that run go on, since nothing of theirs is gone; new ones say why they cannot start."""
    running = trio.Event()
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        results = []

        async def one() -> None:
            spec = steps.spec("/bin/sh", "-c", "echo; read x < /dev/shm/fifo || sleep 0.2; exit 7")
            results.append(await runtime.run(spec, secrets={}, on_output=lambda *_: running.set()))

        nursery.start_soon(one)
        await running.wait()
        for pid in named(os.getpid(), "pybuild-launch"):
            os.kill(pid, signal.SIGKILL)
        assert (await steps.sh(runtime, "true")).code == 0  # by the one that had been made ahead
        with pytest.raises(HostError, match="was killed"):
            await steps.sh(runtime, "true")
    assert [result.code for result in results] == [7]


async def test_first_process_that_cannot_get_ready_says_why(builtin: Runtime, steps: Steps) -> None:
    await steps.sh(builtin, "true")
    (launcher,) = named(os.getpid(), "pybuild-launch")
    resource.prlimit(launcher, resource.RLIMIT_NOFILE, (18, 18))  # enough for a supervisor

    async def three_steps() -> None:  # the first may get one that had been made before
        for _ in range(3):
            await steps.sh(builtin, "true")

    with pytest.raises(HostError, match=r"getting ready: .*Too many open files"):
        await three_steps()


async def test_first_process_killed_from_outside(builtin: Runtime, steps: Steps) -> None:
    """As the kernel's out-of-memory killer does: a signal, as the step's own end."""
    marker = f"marker-{time.monotonic_ns()}"

    def kill(_fd: int, _data: bytes) -> None:
        for pid in processes_with(marker):
            os.kill(pid, signal.SIGKILL)

    spec = steps.spec("/bin/sh", "-c", "echo; sleep 1000", env=(PATH, f"M={marker}"))
    result = await builtin.run(spec, secrets={}, on_output=kill)
    assert (result.code, result.signal) == (0, signal.SIGKILL)


async def test_nothing_is_left_after_an_orderly_end(kind: Kind, steps: Steps) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with open_runtime(kind) as runtime:
        await steps.sh(runtime, "sleep 1000 & true")
    assert control_groups(sweep.owner(os.getpid())) == []
    assert named(os.getpid(), "pybuild-launch") == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_step_outlives_every_worker_thread(builtin: Runtime, steps: Steps) -> None:
    """A parent-death signal follows the thread that forked, so no thread of the engine may be that parent."""
    marker = f"marker-{time.monotonic_ns()}"
    seen: list[tuple[str, int]] = []

    def look(_fd: int, _data: bytes) -> None:
        """While the step runs, so that nobody above it is about to end."""
        running = processes_with(marker)
        for supervisor in {parent(pid) for pid in running}:
            if comm(supervisor) == "pybuild-step":
                launcher = parent(supervisor)
                seen.append((comm(launcher), len(os.listdir(f"/proc/{launcher}/task"))))
        for pid in running:
            os.kill(pid, signal.SIGKILL)

    spec = steps.spec("/bin/sh", "-c", "echo; sleep 1000", env=(PATH, f"M={marker}"))
    await builtin.run(spec, secrets={}, on_output=look)
    assert seen == [("pybuild-launch", 1)]


def test_a_group_whose_processes_do_not_die_is_said_to_be_left() -> None:
    """So that whoever comes later tries again. A frozen process does not die before it is thawed."""
    frozen = Path(f"/sys/fs/cgroup/freezer/pybuild-frozen-{os.getpid()}")
    if not frozen.parent.joinpath("cgroup.procs").exists():
        lacking("no hierarchy of version 1 to freeze a process in")
    frozen.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            (frozen / "cgroup.procs").write_text(str(process.pid))
            (frozen / "freezer.state").write_text("FROZEN")
            until(lambda: (frozen / "freezer.state").read_text().strip() == "FROZEN")
            assert not sweep.remove(str(frozen))
        finally:
            (frozen / "freezer.state").write_text("THAWED")
            process.kill()
    assert sweep.remove(str(frozen))
    assert not frozen.exists()


async def launcher_of(runtime: Runtime, steps: Steps) -> int:
    await steps.sh(runtime, "true")  # then it is up
    (launcher,) = named(os.getpid(), "pybuild-launch")
    return launcher


async def test_a_process_that_cannot_be_made_is_the_failure_of_one_step(builtin: Runtime, steps: Steps) -> None:
    """The launcher may open no more files for a while: what else it does and will do goes on."""
    launcher = await launcher_of(builtin, steps)
    builtin.rest()
    until(lambda: not children(launcher))
    soft, hard = resource.prlimit(launcher, resource.RLIMIT_NOFILE)
    open_files = len(os.listdir(f"/proc/{launcher}/fd"))
    for more in (0, 1):  # for the step's socket there is none, or for its process none
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, (open_files + more, hard))
        with pytest.raises(HostError):
            await steps.sh(builtin, "true")
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(2):
            assert (await steps.sh(builtin, "echo yes")).out == "yes\n"
        builtin.rest()
        until(lambda: len(os.listdir(f"/proc/{launcher}/fd")) == open_files)


async def test_a_spare_supervisor_that_is_killed_is_replaced(builtin: Runtime, steps: Steps) -> None:
    launcher = await launcher_of(builtin, steps)
    until(lambda: [comm(pid) for pid in children(launcher)] == ["pybuild-step"])
    (spare,) = children(launcher)
    os.kill(spare, signal.SIGKILL)
    until(lambda: spare not in children(launcher))
    assert (await steps.sh(builtin, "echo yes")).out == "yes\n"


@contextmanager
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_hundreds_of_steps_that_begin_while_the_launcher_is_busy(builtin: Runtime, steps: Steps) -> None:
    launcher = await launcher_of(builtin, steps)
    root = TreeMount(lowers=(str(steps.base),))
    ended = []

    async def run() -> None:
        ended.append((await steps.sh(builtin, "true", root=root)).code)

    with many_files():
        async with trio.open_nursery() as nursery:
            os.kill(launcher, signal.SIGSTOP)
            try:
                for _ in range(350):
                    nursery.start_soon(run)
                await wait_all_tasks_blocked()
            finally:
                os.kill(launcher, signal.SIGCONT)
    assert ended == [0] * 350
