"""Helper programs: bounded, alone, and dead when they should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from buildengine import programs
from buildengine.errors import HostError
from buildengine.programs import ProgramOutputTooLong, ProgramTimeout, run

ENV = {"PATH": "/usr/bin:/bin"}
_setpriv, _shell, _unshare = programs._tools()
GUARDS = {
    "namespace": (_setpriv, _shell, _unshare),
    "session": (_setpriv, _shell, None),
    "bare": (None, None, None),
}


@pytest.fixture(params=GUARDS)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of holding a program, from the best to the least."""
    monkeypatch.setattr(programs, "_tools", lambda: GUARDS[request.param])
    return str(request.param)


@pytest.fixture
def marker() -> Iterator[str]:
    """A word to find processes by; none of them may be left."""
    word = f"marker{os.getpid()}x{time.monotonic_ns()}"
    yield word
    assert wait_until_dead(word)


def alive(word: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def wait_until_dead(word: str) -> bool:
    end = time.monotonic() + 5
    while alive(word) and time.monotonic() < end:
        time.sleep(0.005)
    return not alive(word)


async def sh(script: str, **options: object) -> programs.Completed:
    return await run(["sh", "-c", script], env=ENV, **options)


async def test_output_exit_code_and_input(guard: str) -> None:
    done = await sh("cat; echo err >&2; exit 7", input=b"in")
    assert (done.code, done.stdout, done.stderr) == (7, b"in", b"err\n")


async def test_a_signal_is_a_negative_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_tools", lambda: GUARDS["session"])
    assert (await sh("kill -TERM $$; sleep 9")).code == -signal.SIGTERM


async def test_a_large_input_to_who_does_not_read(guard: str) -> None:
    assert (await sh("exit 3", input=b"x" * 1_000_000)).code == 3


async def test_the_environment_is_what_was_given(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    done = await run(["env"], env={**ENV, "X": "y"})
    names = {line.partition(b"=")[0] for line in done.stdout.splitlines()}
    assert names - {b"PWD", b"_", b"SHLVL", b"OLDPWD"} == {b"PATH", b"X"}


async def test_no_terminal_no_descriptors_and_a_plain_umask(guard: str) -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    done = await sh("ls /proc/$$/fd | tr '\\n' ' '; umask; [ -t 0 ] && echo tty")
    os.close(read)
    os.close(write)
    assert done.stdout.decode().split()[:3] in (["0", "1", "2"], ["0", "1", "10"], ["0022"])
    assert b"0022" in done.stdout
    assert b"tty" not in done.stdout


async def test_a_directory_by_descriptor(tmp_path: Path, guard: str) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    done = await run(["pwd"], env=ENV, cwd=f"/proc/self/fd/{fd}")
    os.close(fd)
    assert done.stdout.decode().strip() == str(tmp_path)


async def test_what_is_not_installed() -> None:
    with pytest.raises(HostError, match="'no-such-program' is not installed") as caught:
        await run(["no-such-program"], env=ENV)
    assert "PATH" in (caught.value.hint or "")


async def test_too_much_output_ends_it(guard: str, marker: str) -> None:
    with pytest.raises(ProgramOutputTooLong):
        await sh(f"yes {marker}", limit=100_000)


async def test_standard_error_is_kept_at_its_end_and_told_as_it_comes(guard: str) -> None:
    seen: list[bytes] = []
    done = await sh("yes 0123456789 | head -c 300000 >&2; echo end >&2", on_stderr=seen.append)
    assert len(done.stderr) == 65536
    assert done.stderr.endswith(b"end\n")
    assert len(b"".join(seen)) == 300_004


async def test_a_timeout_ends_it(guard: str, marker: str) -> None:
    with pytest.raises(ProgramTimeout, match=r"did not end within 0\.05 seconds"):
        await sh(f": {marker}; sleep 1000", timeout=0.05)


async def test_cancelling_kills_it_with_its_children(guard: str, marker: str) -> None:
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:

            def ready(data: bytes) -> None:
                if b"ready" in data:
                    nursery.cancel_scope.cancel()

            script = f"(: {marker}; sleep 1000; :) & sh -c ': {marker}; echo ready >&2; sleep 1000; :'; :"
            await sh(script, on_stderr=ready)
    assert guard != "namespace" or alive(marker) == []  # a mere group has been told to die


async def test_a_daemon_ends_with_the_program_that_started_it(marker: str) -> None:
    await sh(f"setsid -f sh -c ': {marker}; sleep 1000; :' </dev/null >/dev/null 2>&1")
    assert alive(marker) == []


async def test_a_daemon_that_holds_the_pipes_does_not_hold_us(marker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_tools", lambda: GUARDS["session"])
    start = time.monotonic()
    done = await sh(f"setsid -f sh -c ': {marker}; sleep 1000; :'; echo done")
    assert done.stdout == b"done\n"
    assert time.monotonic() - start < 4
    for pid in alive(marker):  # the one case that a session cannot hold: see the module's docstring
        os.kill(pid, signal.SIGKILL)
    assert wait_until_dead(marker)


def test_it_dies_with_us_when_we_are_killed(marker: str) -> None:
    program = (
        "import sys, trio\n"
        "from buildengine.programs import run\n"
        f"script = 'setsid -f sh -c \": {marker}; sleep 1000; :\"; : {marker}; echo ready >&2; sleep 1000; :'\n"
        "say = lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush())\n"
        "trio.run(lambda: run(['sh', '-c', script], env={'PATH': '/usr/bin:/bin'}, on_stderr=say))\n"
    )
    us = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert us.stdout is not None
    assert us.stdout.readline() == b"ready\n"
    assert len(alive(marker)) >= 2
    us.kill()
    us.wait()
    us.stdout.close()
    assert wait_until_dead(marker)


async def test_no_descriptor_is_left(guard: str) -> None:
    await sh("true")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        await sh("true", input=b"x")
    assert os.listdir("/proc/self/fd") == before
