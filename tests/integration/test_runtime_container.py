"""Steps that somebody talks to: streams, terminals, signals, and more processes in one container."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.errors import HostError, UserError
from buildengine.limits import DISK, offload
from tests.fakes import leftovers
from tests.fakes.runtime_steps import Steps, processes_with
from worker.runtime.container import Container, Process
from worker.runtime.runtime import Runtime, open_runtime
from worker.session import SecretBytes

pytest_plugins = ["tests.fakes.runtime_fixtures"]


@pytest.fixture
async def builtin() -> AsyncIterator[Runtime]:
    async with open_runtime("builtin") as opened:
        yield opened


@asynccontextmanager
async def running(runtime: Runtime, steps: Steps, *, marker: str = "pid1") -> AsyncIterator[Container]:
    """A container whose PID 1 sleeps."""
    async with runtime.open_container() as container:
        close(await container.start(steps.spec("/bin/sleep", "1000", env=(f"MARKER={marker}",)), secrets={}))
        yield container


def close(process: Process) -> None:
    for fd in (process.stdin, process.stdout, process.stderr, process.terminal):
        if fd >= 0:
            os.close(fd)


def parent(pid: int) -> int:
    """Of the first process of a container that is its supervisor."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def close_but(process: Process, kept: str) -> None:
    for name in ("stdin", "stdout", "stderr"):
        if name != kept:
            os.close(getattr(process, name))


async def read(fd: int) -> str:
    """All that comes, until the other end is closed. Takes the descriptor."""
    os.set_blocking(fd, False)
    data = b""
    async with trio.lowlevel.FdStream(fd) as stream:
        try:
            async for piece in stream:
                data += piece
        except trio.BrokenResourceError:  # EIO, how a terminal ends
            pass
    return data.decode()


async def output(container: Container, steps: Steps, *argv: str, given: bytes | None = None, **fields: object) -> str:
    """What a program prints that joins the container. It has to end well."""
    spec = steps.spec(*argv, **fields)
    process = await container.start(spec, secrets={}, stdin=given is not None)
    if given is not None:
        os.write(process.stdin, given)
        os.close(process.stdin)
    os.close(process.stderr)
    said = await read(process.stdout)
    ended = await process.wait()
    assert (ended.code, ended.signal) == (0, 0), said
    return said


async def test_the_first_process_reads_and_writes(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        process = await container.start(steps.spec("/bin/cat"), secrets={}, stdin=True)
        os.write(process.stdin, b"hello")
        os.close(process.stdin)
        os.close(process.stderr)
        assert await read(process.stdout) == "hello"
        assert (await process.wait()).code == 0


async def test_what_joins_is_in_the_same_place(builtin: Runtime, steps: Steps) -> None:
    kinds = "mnt ipc uts pid cgroup net"
    namespaces = f"cd /proc/self/ns; for kind in {kinds}; do readlink $kind; done; grep : /proc/self/cgroup"
    async with builtin.open_container() as container:
        script = f"{namespaces}; cat >/dev/null"
        first = await container.start(steps.spec("/bin/sh", "-c", script), secrets={}, stdin=True)
        joined = await output(container, steps, "/bin/sh", "-c", namespaces)
        await output(container, steps, "/bin/sh", "-c", "cat > /tmp/file", given=b"written")
        assert await output(container, steps, "/bin/cat", "/tmp/file") == "written"
        close_but(first, "stdout")
        assert await read(first.stdout) == joined
        assert len(joined.splitlines()) > 6


async def test_what_joins_is_confined_as_the_first(builtin: Runtime, steps: Steps) -> None:
    names = "Cap|Seccomp:|NoNewPrivs"
    async with running(builtin, steps) as container:
        first = await output(container, steps, "/bin/grep", "-E", names, "/proc/1/status")
        joined = await output(container, steps, "/bin/grep", "-E", names, "/proc/self/status")
        assert first == joined
        assert "Seccomp:\t2" in joined
        assert (await output(container, steps, "/bin/ls", "/proc/self/fd")).split() == ["0", "1", "2", "3"]  # ls's own


async def test_what_joins_has_a_user_a_directory_and_secrets_of_its_own(builtin: Runtime, steps: Steps) -> None:
    async with running(builtin, steps) as container:
        spec = steps.spec("/bin/sh", "-c", "id -u; pwd; echo $TOKEN", uid=1000, cwd="/tmp", secret_env=("TOKEN",))
        process = await container.start(spec, secrets={"TOKEN": SecretBytes(b"hush")})
        os.close(process.stderr)
        assert (await read(process.stdout)).split() == ["1000", "/tmp", "hush"]
        assert (await process.wait()).code == 0


async def test_signals(builtin: Runtime, steps: Steps) -> None:
    async with running(builtin, steps) as container:
        script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
        trapping = await container.start(steps.spec("/bin/sh", "-c", script), secrets={})
        assert os.read(trapping.stdout, 6) == b"ready\n"
        await trapping.signal(signal.SIGTERM)
        assert (await trapping.wait()).code == 7
        killed = await container.start(steps.spec("/bin/sleep", "1000"), secrets={})
        await killed.signal(signal.SIGKILL)
        assert (await killed.wait()).signal == signal.SIGKILL
        await killed.signal(signal.SIGKILL)  # of which nothing comes
        close(trapping)
        close(killed)


async def test_what_joins_may_signal_the_first(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"
        first = await container.start(steps.spec("/bin/sh", "-c", script), secrets={})
        assert os.read(first.stdout, 6) == b"ready\n"
        joined = await container.start(steps.spec("/bin/kill", "-USR1", "1"), secrets={})
        assert (await first.wait()).code == 9
        await joined.wait()  # by itself, or with the first
        close(first)
        close(joined)


async def test_the_end_of_the_first_is_the_end_of_all(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        first = await container.start(steps.spec("/bin/cat"), secrets={}, stdin=True)
        other = await container.start(steps.spec("/bin/sleep", "1000"), secrets={})
        os.close(first.stdin)
        first.stdin = -1
        assert (await other.wait()).signal == signal.SIGKILL
        assert (await first.wait()).code == 0
        with pytest.raises(UserError, match="the container has ended"):
            await container.start(steps.spec("/bin/true"), secrets={})
        close(first)
        close(other)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_who_comes_too_late_takes_nothing_from_the_first(builtin: Runtime, steps: Steps) -> None:
    """The supervisor hears of the end of the first and of who wants to join it at one moment."""
    async with builtin.open_container() as container, trio.open_nursery() as nursery:
        first = await container.start(steps.spec("/bin/cat", env=("MARKER=late",)), secrets={}, stdin=True)
        os.write(first.stdin, b"x")
        await trio.lowlevel.wait_readable(first.stdout)
        (pid,) = processes_with("MARKER=late")
        pidfd = os.pidfd_open(pid)
        late: list[Process] = []

        async def join() -> None:
            late.append(await container.start(steps.spec("/bin/true"), secrets={}))

        with stopped(parent(pid)):
            os.close(first.stdin)
            first.stdin = -1
            await trio.lowlevel.wait_readable(pidfd)  # it has ended
            nursery.start_soon(join)
            await wait_all_tasks_blocked()
        assert (await first.wait()).code == 0
        nursery.cancel_scope.deadline = trio.current_time() + 60
    with pytest.raises(UserError, match="the container has ended"):
        await late[0].wait()
    os.close(pidfd)
    close(first)
    close(late[0])


async def test_a_start_that_is_cancelled_leaves_nothing(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        first = await container.start(steps.spec("/bin/cat", env=("MARKER=first",)), secrets={}, stdin=True)
        os.write(first.stdin, b"x")
        await trio.lowlevel.wait_readable(first.stdout)
        (pid,) = processes_with("MARKER=first")
        descriptors = len(os.listdir("/proc/self/fd"))
        with stopped(parent(pid)), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                spec = steps.spec("/bin/sleep", "1000", terminal=True, env=("MARKER=abandoned",))
                nursery.start_soon(partial(container.start, spec, secrets={}))
                await wait_all_tasks_blocked()
                scope.cancel()
        await output(container, steps, "/bin/true")  # behind it in the queue of the supervisor

        def is_gone() -> bool:
            return not processes_with("MARKER=abandoned") and len(os.listdir("/proc/self/fd")) <= descriptors

        assert await offload(leftovers.until, is_gone, limiter=DISK)
        close(first)


async def test_many_may_have_something_to_say_while_nobody_listens(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        first = await container.start(steps.spec("/bin/cat", env=("MARKER=deaf",)), secrets={}, stdin=True)
        os.write(first.stdin, b"x")
        await trio.lowlevel.wait_readable(first.stdout)
        (pid,) = processes_with("MARKER=deaf")

        async def say() -> None:
            for _ in range(2000):
                await first.signal(signal.SIGCONT)

        async with trio.open_nursery() as nursery:
            with stopped(parent(pid)):
                nursery.start_soon(say)
                nursery.start_soon(say)
                await wait_all_tasks_blocked()
        os.close(first.stdin)
        first.stdin = -1
        assert (await first.wait()).code == 0
        close(first)


async def test_leaving_kills_what_is_left(builtin: Runtime, steps: Steps) -> None:
    async with running(builtin, steps, marker="left-behind") as container:
        script = ("/bin/sh", "-c", "echo ready; exec sleep 1000")
        other = await container.start(steps.spec(*script, env=("MARKER=left-behind",)), secrets={})
        assert os.read(other.stdout, 6) == b"ready\n"
        assert processes_with("MARKER=left-behind") != []
    assert processes_with("MARKER=left-behind") == []
    assert (await other.wait()).signal == signal.SIGKILL
    close(other)


async def test_a_cancelled_container_is_gone(builtin: Runtime, steps: Steps) -> None:
    with trio.CancelScope() as scope:
        async with running(builtin, steps, marker="cancelled"):
            scope.cancel()
            await trio.sleep_forever()
    assert processes_with("MARKER=cancelled") == []


async def test_a_first_process_that_is_refused_is_none(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        with pytest.raises(UserError, match="not absolute"):
            await container.start(steps.spec("/bin/true", cwd="here"), secrets={})
        assert (await output(container, steps, "/bin/sh", "-c", "echo $$")).strip() == "1"


async def test_a_container_without_a_process(builtin: Runtime) -> None:
    async with builtin.open_container():
        pass


async def test_a_program_that_is_not_there(builtin: Runtime, steps: Steps) -> None:
    async with running(builtin, steps) as container:
        process = await container.start(steps.spec("/bin/nothing"), secrets={})
        with pytest.raises(UserError, match="no such file"):
            await process.wait()
        close(process)


async def test_a_terminal(builtin: Runtime, steps: Steps) -> None:
    async with builtin.open_container() as container:
        script = "tty; read line; stty size; echo got $line; exit 3"
        spec = steps.spec("/bin/sh", "-c", script, terminal=True, uid=1000)
        process = await container.start(spec, secrets={})
        assert process.stdout == process.stdin == -1
        said = os.read(process.terminal, 100)
        assert said == b"/dev/pts/0\r\n"
        fcntl.ioctl(process.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.write(process.terminal, b"word\n")
        assert await read(process.terminal) == "word\r\n24 80\r\ngot word\r\n"
        assert (await process.wait()).code == 3


async def test_a_terminal_of_what_joins_controls_it(builtin: Runtime, steps: Steps) -> None:
    async with running(builtin, steps) as container:
        process = await container.start(steps.spec("/bin/sleep", "1000", terminal=True), secrets={})
        os.write(process.terminal, b"\x03")
        assert (await process.wait()).signal == signal.SIGINT
        close(process)


@pytest.mark.parametrize("kind", ["runc"])
async def test_other_runtimes_have_none(kind: str, tmp_path: Path) -> None:
    async with open_runtime(kind) as runtime:
        with pytest.raises(HostError, match="runs no containers for a client"):
            async with runtime.open_container():
                pass
