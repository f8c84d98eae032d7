"""`pybuild login` and `logout` at the terminal: what is asked, what is said, where a password may not be."""

from __future__ import annotations

import gc
import os
import pty
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from buildengine.cli.app import App
from buildengine.errors import RegistryError
from buildengine.registries import Forgotten, Kept, Login
from tests.fakes.builder import FakeBuilder, Ran, run_cli


@dataclass
class FakeRegistries:
    """Takes `passwords` by user; what it was asked is in `asked`."""

    known: str | None = None
    passwords: tuple[str, ...] = ("secret",)
    unencrypted: Path | None = None
    problems: tuple[str, ...] = ()
    asked: list[object] = field(default_factory=list)

    def known_user(self, server: str) -> str | None:
        return self.known

    def log_in(self, server: str, login: Login | None) -> Kept:
        self.asked.append((server, login and (login.username, login.password)))
        if login is not None and login.password not in self.passwords:
            raise RegistryError("login failed: the user name or password is wrong", status=401)
        if login is None and "known" not in self.passwords:
            raise RegistryError("denied", status=401)
        return Kept(host=server, unencrypted=self.unencrypted)

    def log_out(self, server: str) -> Forgotten:
        self.asked.append(server)
        return Forgotten(key=server or "https://index.docker.io/v1/", problems=self.problems)


def run(registries: FakeRegistries, *args: str, stdin: bytes = b"") -> Ran:
    builder = FakeBuilder()
    ran = run_cli(builder, *args, stdin=stdin, app=App(builder.open, lambda config: registries))
    assert not builder.configs  # no engine was opened
    return ran


@pytest.mark.parametrize(
    ("given", "password"),
    [(b"secret\n", "secret"), (b"secret\r\n", "secret"), (b" s p \n\n", " s p \n"), ("é".encode(), "é")],
)
def test_a_password_on_standard_input(given: bytes, password: str) -> None:
    registries = FakeRegistries(passwords=(password,))
    ran = run(registries, "login", "-u", "bob", "--password-stdin", "h:5000", stdin=given)
    assert (ran.status, ran.stdout, ran.stderr) == (0, "Login Succeeded\n", "")
    assert registries.asked == [("h:5000", ("bob", password))]


def test_dash_p_is_warned_about_and_so_is_a_file() -> None:
    ran = run(FakeRegistries(unencrypted=Path("/x/config.json")), "login", "-u", "bob", "-p", "secret")
    assert ran.status == 0
    assert "WARNING! Using --password via the CLI is insecure. Use --password-stdin." in ran.stderr
    assert "WARNING! Your credentials are stored unencrypted in '/x/config.json'." in ran.stderr
    assert "secret" not in ran.stdout + ran.stderr


def test_a_dash_for_the_password_is_standard_input() -> None:
    registries = FakeRegistries()
    assert run(registries, "login", "-u", "bob", "-p", "-", stdin=b"secret").stderr == ""
    assert registries.asked == [("", ("bob", "secret"))]


@pytest.mark.parametrize(
    ("args", "stdin", "problem"),
    [
        (("--password-stdin",), b"x", "--password-stdin needs --username"),
        (("-u", "bob", "-p", "x", "--password-stdin"), b"x", "do not go together"),
        (("-u", " ", "-p", "x"), b"", "the user name is empty"),
        (("-u", "bob", "-p", ""), b"", "the password is empty"),
        (("-u", "bob", "--password-stdin"), b" \n", "the password on standard input is empty"),
        (("-u", "bob", "--password-stdin"), b"x" * ((1 << 20) + 1), "is longer than"),
        (("-u", "bob"), b"", "standard input is not a terminal"),
        ((), b"", "standard input is not a terminal"),
        (("-u", "bob", "-p", "hunter2"), b"", "login failed"),
    ],
)
def test_what_cannot_be_a_login(args: tuple[str, ...], stdin: bytes, problem: str) -> None:
    ran = run(FakeRegistries(), "login", *args, stdin=stdin)
    assert ran.status == 1  # as docker
    assert problem in ran.stderr
    assert "hunter2" not in ran.stderr


def test_what_is_kept_already_is_tried_first() -> None:
    registries = FakeRegistries(known="bob", passwords=("known",))
    ran = run(registries, "login", "h")
    assert (ran.status, ran.stdout, registries.asked) == (0, "Login Succeeded\n", [("h", None)])
    assert "existing credentials... [Username: bob]" in ran.stderr
    ran = run(FakeRegistries(known="bob"), "login", "h")
    assert ran.status == 1
    assert "Stored credentials invalid or expired" in ran.stderr


def test_logout() -> None:
    registries = FakeRegistries()
    assert run(registries, "logout", "h").stdout == "Removing login credentials for h\n"
    assert run(registries, "logout").stdout == "Removing login credentials for https://index.docker.io/v1/\n"
    ran = run(FakeRegistries(problems=("the helper failed",)), "logout", "h")
    assert ran.status == 0  # as docker
    assert ran.stderr == "WARNING: could not erase credentials:\nthe helper failed\n"


# --- a terminal ---------------------------------------------------------------------------------------------


@contextmanager
def on_a_terminal(registries: FakeRegistries, *args: str) -> Iterator[tuple[int, int]]:
    """The command as a session of its own on a new terminal: its pid, and our end of the terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        status = 99
        gc.disable()  # what the tests have left behind is not for here: an interrupt in some finalizer would be lost
        try:
            sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate(("r", "w", "w")))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            from buildengine.cli.main import main

            status = main(args, App(FakeBuilder().open, lambda config: registries))
            sys.stdout.flush()
        finally:
            os._exit(status)
    try:
        yield pid, fd
    finally:
        os.close(fd)


def until(fd: int, end: str) -> str:
    """What the terminal shows, up to `end`; "" for all there will be."""
    shown = ""
    while not end or not shown.endswith(end):
        try:
            data = os.read(fd, 1000)
        except OSError:  # EIO: the other side has closed
            data = b""
        if not data:
            break
        shown += data.decode()
    return shown


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_questions_on_a_terminal_show_no_password() -> None:
    with on_a_terminal(FakeRegistries(), "login", "h") as (pid, fd):
        assert until(fd, "Username: ").endswith("Username: ")
        os.write(fd, b"bob\n")
        assert until(fd, "Password: ") == "bob\r\nPassword: "
        os.write(fd, b"secret\n")
        assert until(fd, "") == "\r\nLogin Succeeded\r\n"
        assert status_of(pid) == 0


def test_the_known_user_is_offered() -> None:
    with on_a_terminal(FakeRegistries(known="bob"), "login", "h") as (pid, fd):
        assert "expired" in until(fd, "Username (bob): ")
        os.write(fd, b"\n")
        until(fd, "Password: ")
        os.write(fd, b"secret\n")
        assert "Login Succeeded" in until(fd, "")
        assert status_of(pid) == 0


@pytest.mark.parametrize(("sent", "status"), [(b"\x04", 1), (b"\n", 1), (b"\x03", 130), (signal.SIGTERM, 130)])
def test_a_terminal_gets_its_echo_back(sent: bytes | signal.Signals, status: int) -> None:
    import termios

    with on_a_terminal(FakeRegistries(), "login", "-u", "bob", "h") as (pid, fd):
        until(fd, "Password: ")
        assert not termios.tcgetattr(fd)[3] & termios.ECHO
        if isinstance(sent, bytes):
            os.write(fd, sent)
        else:
            os.kill(pid, sent)
        assert "Traceback" not in until(fd, "")
        assert termios.tcgetattr(fd)[3] & termios.ECHO
        assert status_of(pid) == status
