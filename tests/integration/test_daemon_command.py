"""`pybuild daemon start | stop | status`: a daemon that outlives the command that started it."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Built, Store, write

pytest_plugins = [FIXTURES]

Run = Callable[..., Built]


@pytest.fixture
def run(store_with_base: Store, tmp_path: Path) -> Iterator[Run]:
    """`pybuild` on a state directory and a socket of its own; what still runs at its end is killed."""
    store = store_with_base.copy(tmp_path / "root")

    def run(*words: str | Path, **more: object) -> Built:
        return store.command("--addr", f"unix://{tmp_path}/d.sock", *words, **more)

    yield run
    run("daemon", "stop")


def _pid(said: str) -> int | None:
    match = re.search(r"\(pid (\d+)\)", said)
    return int(match[1]) if match else None


def start(run: Run, tmp_path: Path, *flags: str, status: int = 0) -> Built:
    return run("daemon", "start", "--log", tmp_path / "log", *flags, status=status)


def test_from_its_start_to_its_end(run: Run, tmp_path: Path) -> None:
    assert run("daemon", "status", status=3).stdout == f"no daemon runs at {tmp_path}/d.sock\n"
    assert run("daemon", "stop").stdout == f"no daemon runs at {tmp_path}/d.sock\n"
    started = start(run, tmp_path).stdout
    pid, line = _pid(started), f"export PYBUILD_HOST=unix://{tmp_path}/d.sock\n"
    assert started == f"pybuildd started (pid {pid})\n{line}"
    assert os.getsid(pid or 0) == pid  # it is on no terminal
    assert start(run, tmp_path).stdout == f"pybuildd runs already (pid {pid})\n{line}"
    shown = run("daemon", "status").stdout
    assert shown == f"pybuildd runs at {tmp_path}/d.sock (pid {pid})\nstate directory: {tmp_path}/root\n{line}"
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo built\n"})
    built = run("build", context, "--progress", "rawjson")  # at once: it serves
    assert built.step("RUN echo built").output == "built\n"
    assert run("daemon", "stop").stdout == f"pybuildd stopped (pid {pid})\n"
    assert not (tmp_path / "d.sock").exists()
    assert "running server on unix://" in (tmp_path / "log").read_text()


def test_after_it_was_killed(run: Run, tmp_path: Path) -> None:
    pid = _pid(start(run, tmp_path).stdout)
    assert pid is not None
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([process], [], [], 30)[0]
    os.close(process)
    run("daemon", "status", status=3)
    assert (tmp_path / "d.sock").exists()
    assert _pid(start(run, tmp_path).stdout) not in (None, pid)


def test_what_keeps_it_from_serving(run: Run, tmp_path: Path) -> None:
    wrong = start(run, tmp_path, "--", "--nonsense", status=1).error
    assert wrong == "error: unknown flag --nonsense\nhint: see pybuildd --help\n"
    start(run, tmp_path)
    other = run("--addr", f"unix://{tmp_path}/other.sock", "daemon", "start", "--log", tmp_path / "log", status=3).error
    assert f"another pybuildd serves {tmp_path}/root" in other
    elsewhere = run("--root", tmp_path / "x", "daemon", "start", status=1).error
    assert f"a pybuildd serves {tmp_path}/d.sock already, on the state directory {tmp_path}/root" in elsewhere
    refused = run("--addr", "tcp://127.0.0.1:1", "daemon", "status", status=1).error
    assert "pybuild daemon is for a daemon on this host" in refused


def test_somebody_elses_socket_is_left_alone(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(tmp_path / "d.sock"))
        ours.listen()
        assert f"another daemon serves {tmp_path}/d.sock (pid {os.getpid()})" in start(run, tmp_path, status=1).error
        assert "which is no pybuildd of ours to end" in run("daemon", "stop", status=1).error
        assert "another daemon" in run("daemon", "status").stdout
    (tmp_path / "d.sock").unlink()
