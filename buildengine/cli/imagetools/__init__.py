"""`pybuild imagetools`: images in registries, where they are; one command a module."""

from __future__ import annotations

import click

from buildengine.cli.groups import LazyGroup

_HERE = "buildengine.cli.imagetools"
_COMMANDS = {
    "create": (f"{_HERE}.create", "Make an image of others, or copy one"),
    "inspect": (f"{_HERE}.inspect", "Show what an image in a registry is"),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, subcommand_metavar="COMMAND")
def command() -> None:
    """Combine, copy and inspect images in registries. Nothing is stored here; neither root nor an engine is needed."""
