"""`pybuild image save`: images as a tar archive."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.errors import UserError
from buildengine.wholefile import destination, named_by_user


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", type=Path, metavar="FILE", help="Write to FILE (default: standard output).")
@pass_app
def command(app: App, /, images: tuple[str, ...], output: Path | None) -> None:
    """Write images to a tar archive that `docker load` and `pybuild image load` read."""
    if output is None and sys.stdout.isatty():
        raise UserError("refusing to write an archive to the terminal", hint="redirect standard output or use -o FILE")
    with app.open_builder() as builder:
        if output is None:
            with named_by_user("to standard output"):
                builder.images.save(images, partial(_write, sys.stdout.buffer, "to standard output"))
                sys.stdout.buffer.flush()
        else:
            with destination(output) as fd, os.fdopen(fd, "wb", closefd=False) as file:
                builder.images.save(images, partial(_write, file, str(output)))


def _write(file: BinaryIO, place: str, data: bytes) -> None:
    """Where it is called nobody knows what an OSError would be about."""
    with named_by_user(place):
        file.write(data)
