"""`pybuild image prune`: remove images without a name."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.confirm import confirm
from buildengine.cli.groups import Command


@click.command(cls=Command)
@click.option("-a", "--all", is_flag=True, help="Remove all images.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_app
def command(app: App, /, all: bool, force: bool) -> None:
    """Remove images without a name, and their blobs that nothing else needs.

    What the build cache has of them goes with `pybuild prune`.
    """
    what = "all images" if all else "all images without a name"
    if not force and not confirm(f"This will remove {what}."):
        return
    with app.open_builder() as builder:
        removed = builder.images.prune(all=all)
    for image in removed:
        if image.name:
            click.echo(f"untagged: {image.name}")
        click.echo(f"deleted: {image.digest}")
    click.echo(f"{len(removed)} images removed" if len(removed) != 1 else "1 image removed")
