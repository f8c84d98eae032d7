"""`pybuild registry serve`: a registry of our own, for tests and for places without a network."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.progress.lines import safe
from buildengine.errors import UserError

if TYPE_CHECKING:
    from buildengine.builder import ServedRequest

    Log = Callable[[ServedRequest], None]


@click.group(subcommand_metavar="COMMAND")
def command() -> None:
    """A registry of our own, on the state directory."""


@command.command(cls=Command, short_help="Serve images until SIGINT or SIGTERM")
@click.option("--addr", metavar="HOST:PORT", default="127.0.0.1:5000", show_default=True, help="Port 0: any free one.")
@click.option("--read-only", is_flag=True, help="Refuse to push and to delete.")
@click.option("--tls-cert", metavar="FILE", type=Path, help="Certificate (PEM), with those it was signed with.")
@click.option("--tls-key", metavar="FILE", type=Path, help="Its key.")
@click.option("--htpasswd", metavar="FILE", type=Path, help="Let only these users in (made with `htpasswd -B`).")
@click.option("--access-log", metavar="FILE", help="One line of JSON for each request; - is standard output.")
@pass_app
def serve(
    app: App,
    addr: str,
    read_only: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    htpasswd: Path | None,
    access_log: str | None,
) -> None:
    """Serve images until SIGINT or SIGTERM: push, pull, delete, referrers, as the OCI distribution-spec has it."""
    from click.core import ParameterSource

    from buildengine.builder import ServedRegistry

    if click.get_current_context().find_root().get_parameter_source("addr") is ParameterSource.COMMANDLINE:
        raise Misuse("no daemon serves a registry", "what to listen on comes last: registry serve --addr HOST:PORT")
    registry = ServedRegistry(address=addr, read_only=read_only, tls_cert=tls_cert, tls_key=tls_key, htpasswd=htpasswd)
    with _opened(access_log) as log, app.open_local_builder() as builder:
        builder.serve_registry(registry, lambda url: click.echo(f"serving {url}", err=True), log)


@contextmanager
def _opened(name: str | None) -> Iterator[Log]:
    """Where the lines go. What went wrong inside is also said on standard error."""
    if name is None:
        yield lambda request: _complain(request)
        return
    try:
        fd = sys.stdout.fileno() if name == "-" else os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise UserError(f"cannot write the access log {name}: {error.strerror}") from None

    def log(request: ServedRequest) -> None:
        _complain(request)
        with suppress(OSError):  # a full disk ends no request
            os.write(fd, line(request))

    try:
        yield log
    finally:
        if name != "-":
            os.close(fd)


def line(request: ServedRequest) -> bytes:
    """One request, as one line of JSON: nothing that a client sends can begin another."""
    document = {
        "number": request.number,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(request.time)) + f".{int(request.time % 1 * 1000):03}Z",
        "remote": request.remote,
        "method": request.method,
        "path": request.target,
        "status": request.status,
        "received": request.received,
        "sent": request.sent,
        "seconds": round(request.seconds, 6),
        "agent": request.agent,
        "problem": request.problem,
    }
    return json.dumps(document).encode() + b"\n"


def _complain(request: ServedRequest) -> None:
    if request.problem:
        click.echo(safe(f"{request.method} {request.target}: {request.problem}".strip()), err=True)
