"""`pybuild debug verify-store`: whether everything in the state directory is as it was written."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.cli.progress.lines import safe
from buildengine.errors import StoreError


@click.command(cls=Command)
@pass_app
def command(app: App) -> None:
    """Check every blob, record and snapshot of the state directory. Exits with 4 when something is damaged."""
    with app.open_builder() as builder:
        found = builder.verify_store()
    for damage in found.damages:
        click.echo(f"{safe(damage.where)}: {safe(damage.problem)}")
    if found.damages:
        number = "1 damage" if len(found.damages) == 1 else f"{len(found.damages)} damages"
        raise StoreError(f"the store at {found.root} has {number}")
    click.echo(f"the store at {found.root} is sound")
