"""`pybuild push`: an image of the local store, to the registry that its name says or to others.

localhost:5000/app:1@sha256:3f1c...
"""

from __future__ import annotations

import sys

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.flags import value
from buildengine.cli.groups import Command
from buildengine.cli.progress.display import MODES, open_display


@click.command(cls=Command)
@click.argument("image", metavar="IMAGE")
@click.argument("names", nargs=-1, metavar="[NAME[:TAG]]...", type=value(flags.tag))
@click.option("-q", "--quiet", is_flag=True, help="Print what was pushed and nothing else.")
@click.option("--progress", type=click.Choice(MODES), default="auto", help="How progress is shown.")
@pass_app
def command(app: App, /, image: str, names: tuple[str, ...], quiet: bool, progress: str) -> None:
    """Push IMAGE, a name or an id, under its own name or under each NAME."""
    with (
        app.open_builder() as builder,
        open_display("quiet" if quiet else progress, sys.stderr) as display,
    ):
        pushed = builder.push(image, names, display.event, display.tick)
    for name in pushed:
        click.echo(name)
