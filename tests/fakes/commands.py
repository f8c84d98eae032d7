"""The whole program, hundreds of times: `pybuild` commands that start in milliseconds.

    with open_commands() as commands:
        ended = commands.run("--root", root, "build", context)

One process imports what the program imports and then forks for each command, so a command is the real `main` with its
own descriptors, directory, environment and session, without the 0.6 s that Python needs to get there. What depends on
how Python starts (its `sys.path`, the current directory) is to be tested with `fresh=True`: exec of the program.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PYBUILD = Path(sys.executable).with_name("pybuild")
_REPOSITORY = Path(__file__).parents[2]
_LONGEST = 1 << 20  # bytes of an order: arguments and environment


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended. `status` is minus the signal's number when a signal ended it."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Both streams, for a look at what a user sees."""
        return (self.stdout + self.stderr).decode(errors="backslashreplace")

    @property
    def report(self) -> str:
        """Standard error from the last `error:` at the beginning of a line on."""
        return self.stderr.decode(errors="backslashreplace").rpartition("\nerror: ")[2].removeprefix("error: ")


class Commands:
    """`inside(path)` is how this process sees a path of the commands, whose mount namespace may be another one."""

    def __init__(self, address: str, pid: int) -> None:
        self._address = address
        self.pid = pid

    def inside(self, path: Path) -> Path:
        return Path(f"/proc/{self.pid}/root{path}")

    def run(
        self,
        *arguments: object,
        cwd: Path = Path("/"),
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 60.0,
        fresh: bool = False,
        prefix: tuple[str, ...] = (),
    ) -> Ended:
        """Run `pybuild ARGUMENTS`. `prefix` are words in front of the program, which is then always exec'ed."""
        order = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "environment": {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environment or {})},
        }
        started = time.monotonic()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            streams = [given.fileno(), out.fileno(), err.fileno()]
            if fresh or prefix:
                status = _exec(order, streams, timeout, prefix)
            else:
                status = self._fork(order, streams, timeout)
            out.seek(0)
            err.seek(0)
            return Ended(
                status=status, stdout=out.read(), stderr=err.read(), seconds=time.monotonic() - started
            )  # fmt: skip

    def _fork(self, order: Mapping[str, object], streams: list[int], timeout: float) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout)
            connection.connect(self._address)
            socket.send_fds(connection, [json.dumps(order).encode()], streams)
            pid = self._number(connection.recv(1000))
            try:
                return self._number(connection.recv(1000))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"not ended after {timeout} s: {order['arguments']}") from None

    def _number(self, answer: bytes) -> int:
        """Raises AssertionError with what kept the command from running."""
        if answer.lstrip(b"-").isdigit():
            return int(answer)
        alive = Path(f"/proc/{self.pid}").exists()
        cause = answer.decode() or f"no answer from the process that forks, which {'runs' if alive else 'has ended'}"
        raise AssertionError(f"the command did not run: {cause}")


def _exec(order: Mapping[str, object], streams: list[int], timeout: float, prefix: tuple[str, ...]) -> int:
    arguments, environment, cwd = order["arguments"], order["environment"], order["cwd"]
    assert isinstance(arguments, list)
    assert isinstance(environment, dict)
    stdin, stdout, stderr = streams
    return subprocess.run(
        [*prefix, str(PYBUILD), *arguments],
        cwd=str(cwd),
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        timeout=timeout,
        check=False,
    ).returncode


@contextlib.contextmanager
def open_commands() -> Iterator[Commands]:
    with tempfile.TemporaryDirectory(prefix="pybuild-test-") as directory:
        address = f"{directory}/socket"
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, address], cwd=_REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Commands(address, process.pid)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


# --- the process that forks -----------------------------------------------------------------------------------


def _serve(address: str) -> NoReturn:
    _warm_up()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = listener.accept()
            try:
                pid = os.fork()
            except OSError as error:  # EAGAIN, ENOMEM: a busy host has no more processes
                pid = -1
                with contextlib.suppress(OSError):
                    connection.send(f"fork: {error.strerror}".encode())
            if pid == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _warm_up() -> None:
    """Import every module of the program, and make the grammar: it costs more than most commands."""
    for package in ("buildengine.cli", "buildengine.daemon", "cache", "frontends", "llb", "solver", "worker"):
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not module.name.endswith("_pb2"):
                importlib.import_module(module.name)
    from frontends.dockerfile import lines, parse

    every = b'FROM a\nRUN a\nCOPY a b\nADD a b\nENV a=b\nUSER a\nWORKDIR a\nARG a\nLABEL a=b\nEXPOSE 1\nSHELL ["a"]\n'
    for _instruction in parse.instructions(lines.split(lines.SourceFile(filename="Dockerfile", data=every))):
        pass


def _answer(connection: socket.socket) -> NoReturn:
    """Run one command in a child, and tell its pid and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order, streams, _, _ = socket.recv_fds(connection, _LONGEST, 3)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(json.loads(order), streams)
    for fd in streams:
        os.close(fd)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # whoever asked has lost patience
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(order: Mapping[str, object], streams: list[int]) -> NoReturn:
    from buildengine.cli.main import main

    status = 99
    try:
        os.setsid()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        os.closerange(3, 1024)
        arguments, environment = order["arguments"], order["environment"]
        assert isinstance(arguments, list)
        assert isinstance(environment, dict)
        os.chdir(str(order["cwd"]))
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["pybuild", *arguments]
        status = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
