"""`pybuild logout`: as `docker logout`, from the same configuration file and credential helpers."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command


@click.command(cls=Command)
@click.argument("server", required=False, default="", metavar="[SERVER]")
@pass_app
def command(app: App, /, server: str) -> None:
    """Log out from a registry (Docker Hub when none is named)."""
    forgotten = app.registries.log_out(server)
    click.echo(f"Removing login credentials for {forgotten.key}")
    if forgotten.problems:
        click.echo("WARNING: could not erase credentials:", err=True)
        for problem in forgotten.problems:
            click.echo(problem, err=True)
