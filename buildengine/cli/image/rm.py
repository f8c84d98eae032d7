"""`pybuild image rm`: remove names of images, and images with their last name."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.failures import Failures
from buildengine.cli.groups import Command


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--force", is_flag=True, help="Remove an image by its id although it has several names.")
@pass_app
def command(app: App, /, images: tuple[str, ...], force: bool) -> None:
    """Remove images, by name or id."""
    failures = Failures()
    with app.open_builder() as builder:
        for image in images:
            with failures:
                for line in builder.images.remove(image, force=force):
                    click.echo(line)
    failures.raise_any()
