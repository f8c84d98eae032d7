"""`pybuild dial-stdio`: standard input and output become a connection to the daemon. Another pybuild runs it by ssh."""

from __future__ import annotations

import click

from buildengine.cli.app import DAEMON, App, pass_app
from buildengine.cli.groups import Command


@click.command(cls=Command, hidden=True)
@pass_app
def command(app: App, /) -> None:
    """Connect standard input and output to the daemon's socket."""
    from buildengine.client.stdio import carry

    carry(app.address(DAEMON))
