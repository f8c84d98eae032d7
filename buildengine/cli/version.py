"""`pybuild version`."""

from __future__ import annotations

import click

from buildengine.cli.groups import Command
from buildengine.cli.report import about


@click.command(cls=Command)
def command() -> None:
    """Show the version of pybuild and of what it runs on."""
    for line in about():
        click.echo(line)
