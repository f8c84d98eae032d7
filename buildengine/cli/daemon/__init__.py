"""`pybuild daemon`: a pybuildd on this host that runs by itself, one command a module."""

from __future__ import annotations

import click

from buildengine.cli.groups import LazyGroup

_HERE = "buildengine.cli.daemon"
_COMMANDS = {
    "start": (f"{_HERE}.start", "Start one and wait until it serves"),
    "stop": (f"{_HERE}.stop", "End it and wait until it has ended"),
    "status": (f"{_HERE}.status", "Show whether one runs"),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, subcommand_metavar="COMMAND")
def command() -> None:
    """Run a daemon on this host: at the unix socket that --addr names, else at buildkitd's usual one.

    Other commands use it when --addr or $PYBUILD_HOST names it, and not by themselves.
    """
