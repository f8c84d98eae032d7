"""`pybuild debug`: look into definitions and the store, one command a module."""

from __future__ import annotations

import click

from buildengine.cli.groups import LazyGroup

_COMMANDS = {
    "dump-llb": ("buildengine.cli.debug.dump_llb", "Show an LLB definition as JSON or as a drawing"),
    "platforms": ("buildengine.cli.debug.platforms", "Show for which platforms steps can run, and how"),
    "verify-store": ("buildengine.cli.debug.verify_store", "Check every blob, record and snapshot"),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, subcommand_metavar="COMMAND")
def command() -> None:
    """Look into definitions and the store."""
