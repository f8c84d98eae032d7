"""`pybuild daemon status`: the exit status is that of init scripts (LSB): 0 it runs, 3 it does not, 4 nobody knows."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.daemon.place import export_line, socket_path
from buildengine.cli.groups import Command
from buildengine.errors import HostError

_NOT_RUNNING, _UNKNOWN = 3, 4


@click.command(cls=Command)
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, /) -> None:
    """Show whether a daemon runs on this host. Exits with 0 when one does, 3 when none does, 4 when it cannot tell."""
    from buildengine.daemon import detached

    path = socket_path(app)
    try:
        found = detached.find(path)
    except HostError as error:
        app.reporter().build_error(error)
        ctx.exit(_UNKNOWN)
    if found is None:
        click.echo(f"no daemon runs at {path}")
        ctx.exit(_NOT_RUNNING)
    name = "pybuildd" if found.is_pybuildd else f"another daemon ({' '.join(found.words[:1])})"
    click.echo(f"{name} runs at {path} (pid {found.pid})")
    if found.root:
        click.echo(f"state directory: {found.root}")
    click.echo(export_line(path))
