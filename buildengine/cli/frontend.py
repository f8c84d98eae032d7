"""`pybuild frontend new`: the beginning of a build language of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from buildengine.cli.groups import Command
from buildengine.errors import UserError


@click.group(subcommand_metavar="COMMAND")
def command() -> None:
    """Build languages of your own."""


@command.command(cls=Command, short_help="Write a new frontend, with tests")
@click.argument("name")
@click.argument("directory", type=Path, required=False)
def new(name: str, directory: Path | None) -> None:
    """Write a frontend NAME into DIRECTORY (default: ./NAME), a Python project with tests that pass.

    Its README says how to try it; docs/frontends.md is the guide.
    """
    from frontends.scaffold import project

    files = project(name)
    place = directory or Path(name)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise UserError(f"{place} is not empty", hint=f"another directory: pybuild frontend new {name} DIRECTORY")
        for path, text in files.items():
            file = place / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    click.echo("\n".join(f"{place}/{path}" for path in files))
    click.echo(f"\nnext: cd {place} && pip install -e '.[dev]' && pytest")
