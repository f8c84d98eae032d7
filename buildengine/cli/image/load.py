"""`pybuild image load`: images from a tar archive."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.errors import UserError


@click.command(cls=Command)
@click.option("-i", "--input", "source", type=Path, metavar="FILE", help="Read FILE (default: standard input).")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what was loaded.")
@pass_app
def command(app: App, /, source: Path | None, quiet: bool) -> None:
    """Read images from a tar archive of docker or of the OCI layout, compressed or not."""
    if source is None and sys.stdin.isatty():
        raise UserError("there is no archive on standard input", hint="pipe one in or use -i FILE")
    try:
        file: AbstractContextManager[IO[bytes]] = source.open("rb") if source else nullcontext(sys.stdin.buffer)
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror}") from None
    with file as archive, app.open_builder() as builder:
        loaded = builder.images.load(archive.read)
    if not quiet:
        for image in loaded:
            click.echo(f"Loaded image: {image}")
