"""`pybuild history`: the builds that a daemon remembers, one command a module."""

from __future__ import annotations

import click

from buildengine.cli.groups import LazyGroup

_HERE = "buildengine.cli.history"
_COMMANDS = {
    "ls": (f"{_HERE}.ls", "List builds"),
    "inspect": (f"{_HERE}.inspect", "Show everything about a build"),
    "logs": (f"{_HERE}.logs", "Print what a build said"),
    "rm": (f"{_HERE}.rm", "Forget builds"),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, subcommand_metavar="COMMAND")
def command() -> None:
    """Look at the builds that a daemon has made: of the one that --addr names, or that ran on this host.

    A REF is the id of a build, or ^N: the newest is ^0, which also is meant where none is given.
    """
