"""`pybuild debug dump-llb`: an LLB definition for people, as `buildctl debug dump-llb` shows it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from buildengine.cli.groups import Command
from buildengine.errors import UserError


@click.command(cls=Command)
@click.argument("file", required=False, type=Path, metavar="[FILE]")
@click.option("--dot", is_flag=True, help="Draw the graph in the language of Graphviz.")
def command(file: Path | None, dot: bool) -> None:
    """Show the LLB definition in FILE or on standard input: one operation a line, as JSON."""
    from llb.definition import Definition
    from llb.inspect import to_dot, to_json

    definition = Definition.from_bytes(_read(file))
    if dot:
        click.echo(to_dot(definition), nl=False)
        return
    for line in to_json(definition):
        click.echo(line)


def _read(file: Path | None) -> bytes:
    if file is None or str(file) == "-":
        if sys.stdin.isatty():
            raise UserError("there is no definition on standard input", hint="pipe one in or name a FILE")
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
