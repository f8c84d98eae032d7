"""`pybuild daemon start`: pybuildd, detached from this terminal."""

from __future__ import annotations

import os
from pathlib import Path

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.daemon.place import export_line, socket_path
from buildengine.cli.groups import Command
from buildengine.errors import HostError, UserError


@click.command(cls=Command)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- PYBUILDD-FLAGS...]")
@click.option("--log", type=Path, metavar="FILE", help="Where its log goes (default: /var/log/pybuildd.log).")
@pass_app
def command(app: App, /, flags: tuple[str, ...], log: Path | None) -> None:
    """Start a daemon on this host, and wait until it serves."""
    from buildengine.daemon import detached

    path, root = socket_path(app), app.config.root.absolute()
    running = detached.find(path)
    if running is None:
        if os.geteuid() != 0:
            raise HostError("pybuildd needs root to run build steps", hint="run it with sudo")
        given = {**os.environ, **({"PYBUILD_CONFIG": str(app.file.absolute())} if app.file is not None else {})}
        more = (*(["--debug"] if app.debug else ()), *flags)
        running = detached.start(root, path, (log or detached.LOG).absolute(), more, given)
        click.echo(f"pybuildd started (pid {running.pid})")
    elif not running.is_pybuildd:
        raise UserError(
            f"another daemon serves {path} (pid {running.pid})", hint="name another socket: --addr unix://PATH"
        )
    elif running.root not in ("", str(root)):
        raise UserError(
            f"a pybuildd serves {path} already, on the state directory {running.root}",
            hint="name another socket: --addr unix://PATH",
        )
    else:
        click.echo(f"pybuildd runs already (pid {running.pid})")
    click.echo(export_line(path))
