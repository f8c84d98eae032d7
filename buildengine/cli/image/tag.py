"""`pybuild image tag`: another name for an image."""

from __future__ import annotations

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.flags import value
from buildengine.cli.groups import Command


@click.command(cls=Command)
@click.argument("source", metavar="IMAGE")
@click.argument("target", metavar="NAME[:TAG]", type=value(flags.tag))
@pass_app
def command(app: App, /, source: str, target: str) -> None:
    """Give the image IMAGE also the name NAME."""
    with app.open_builder() as builder:
        builder.images.tag(source, target)
