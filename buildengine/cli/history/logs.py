"""`pybuild history logs`: what a build said, painted as the build was."""

from __future__ import annotations

import sys

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.cli.history import records
from buildengine.cli.progress.display import open_display


@click.command(cls=Command)
@click.argument("ref", required=False, metavar="[REF]")
@click.option(
    "--progress",
    type=click.Choice(("auto", "plain", "rawjson", "tty")),
    default="plain",
    help="How it is shown (auto: plain).",
)
@pass_app
def command(app: App, /, ref: str | None, progress: str) -> None:
    """Print what a build said, to its end: that of one that runs is waited for."""
    with app.open_history() as history:
        record = records.find(history, ref)
        with open_display("plain" if progress == "auto" else progress, sys.stderr) as display:
            history.logs(record.ref, display.event)
