"""`pybuild image`: the local image store, one command a module."""

from __future__ import annotations

import click

from buildengine.cli.groups import LazyGroup

_HERE = "buildengine.cli.image"
_COMMANDS = {
    "ls": (f"{_HERE}.ls", "List images"),
    "inspect": (f"{_HERE}.inspect", "Show everything about images, as JSON"),
    "history": (f"{_HERE}.history", "Show how an image came about"),
    "tag": (f"{_HERE}.tag", "Give an image another name"),
    "rm": (f"{_HERE}.rm", "Remove images"),
    "prune": (f"{_HERE}.prune", "Remove images without a name"),
    "save": (f"{_HERE}.save", "Write images to a tar archive"),
    "load": (f"{_HERE}.load", "Read images from a tar archive"),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, subcommand_metavar="COMMAND")
def command() -> None:
    """Manage the images of the local store."""
