"""`pybuild daemon stop`."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.daemon.place import socket_path
from buildengine.cli.groups import Command


@click.command(cls=Command)
@pass_app
def command(app: App, /) -> None:
    """End the daemon of this host and wait until it has ended: builds that run are cancelled."""
    from buildengine.daemon import detached

    path = socket_path(app)
    stopped = detached.stop(path)
    click.echo(f"pybuildd stopped (pid {stopped.pid})" if stopped is not None else f"no daemon runs at {path}")
