"""`pybuild login`: as `docker login`, into the same configuration file and credential helpers.

    WARNING! Your credentials are stored unencrypted in '/root/.docker/config.json'.
    Login Succeeded

Facts: docker/cli cli/command/registry/login.go and registry.go (the order of checks and questions, what is said).
Docker Hub's login through a browser is not offered: a user name and a token do the same.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.errors import RegistryError, UserError
from buildengine.registries import Kept, Login, Registries

_LONGEST = 1 << 20  # bytes of a password: some registries take a JSON key file
_UNAUTHORIZED = 401


@click.command(cls=Command)
@click.argument("server", required=False, default="", metavar="[SERVER]")
@click.option("-u", "--username", metavar="USER", help="User name.")
@click.option("-p", "--password", metavar="PASSWORD", help="Password or token; - reads it from standard input.")
@click.option("--password-stdin", is_flag=True, help="Take the password or token from standard input.")
@pass_app
def command(app: App, /, server: str, username: str | None, password: str | None, password_stdin: bool) -> None:
    """Log in to a registry (Docker Hub when none is named).

    Credentials are kept where docker keeps them: in its config.json, or in the credential helper named there.
    """
    if password == "-":
        password, password_stdin = None, True
    _check(username, password, password_stdin)
    if password is not None:
        _say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if password_stdin:
        password = _given()
    registries = app.registries
    kept = None
    if username is None and password is None:
        kept = _with_what_is_known(registries, server)
    if kept is None:
        kept = registries.log_in(server, _asked(registries, server, username, password))
    if kept.unencrypted is not None:
        _say(
            f"\nWARNING! Your credentials are stored unencrypted in '{kept.unencrypted}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    click.echo("Login Succeeded")


def _check(username: str | None, password: str | None, password_stdin: bool) -> None:
    if password_stdin and password is not None:
        raise UserError("--password and --password-stdin do not go together")
    if password_stdin and username is None:
        raise UserError("--password-stdin needs --username")
    if username is not None and not username.strip():
        raise UserError("the user name is empty")
    if password == "":
        raise UserError("the password is empty")


def _given() -> str:
    """The password on standard input, without the end of its line."""
    raw = sys.stdin.buffer.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise UserError(f"the password on standard input is longer than {_LONGEST} bytes")
    text = raw.decode(errors="surrogateescape")
    for end in ("\r\n", "\n", "\r"):
        if text.endswith(end):
            text = text.removesuffix(end)
            break
    if not text.strip():
        raise UserError("the password on standard input is empty")
    return text


def _with_what_is_known(registries: Registries, server: str) -> Kept | None:
    """A login with the password that is kept already; None when there is none that works."""
    user = registries.known_user(server)
    if user is None:
        return None
    _say(f"Authenticating with existing credentials... [Username: {user}]")
    _say("To log in with another account, log out first, or give --username.")
    try:
        return registries.log_in(server, None)
    except RegistryError as error:
        is_wrong = error.status == _UNAUTHORIZED
        _say("Stored credentials invalid or expired" if is_wrong else f"Login did not succeed: {error.message}")
        return None


def _asked(registries: Registries, server: str, username: str | None, password: str | None) -> Login:
    """Who the user says to be, asked on the terminal for what is not known yet."""
    if (username is None or password is None) and not sys.stdin.isatty():
        raise UserError(
            "cannot ask for a user name and a password: standard input is not a terminal",
            hint="pybuild login -u USER --password-stdin",
        )
    if username is None:
        username = _ask_user(registries.known_user(server))
    return Login(username=username.strip(), password=password or _ask_password())


def _ask_password() -> str:
    import getpass  # opens the terminal itself, with its echo off

    try:
        with _ending_by_exception():
            password = getpass.getpass("Password: ")
    except EOFError:
        password = ""
    if not password:
        raise UserError("a password is required")
    return password


@contextmanager
def _ending_by_exception() -> Iterator[None]:
    """The signals that end a program unwind it, as Ctrl-C does: the terminal gets its echo back."""
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _ask_user(known: str | None) -> str:
    click.echo(f"Username ({known}): " if known else "Username: ", nl=False)
    sys.stdout.flush()
    username = sys.stdin.readline().strip() or known
    if not username:
        raise UserError("a user name is required")
    return username


def _say(text: str) -> None:
    click.echo(text, err=True)
