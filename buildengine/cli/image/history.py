"""`pybuild image history`: the steps that made an image, as `docker image history` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.flags import value
from buildengine.cli.groups import Command
from buildengine.cli.image import names
from buildengine.cli.table import render
from buildengine.cli.usage import ago
from buildengine.platform import Platform
from buildengine.units import show_size

_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_LONGEST = 45
_MEANT_AS_NO_DATE = 946684800  # docker: nothing was made before the year 2000


@click.command(cls=Command)
@click.argument("image")
@click.option("--format", metavar="FORMAT", help="table, json, or a template with {{.Field}}.")
@click.option("-H", "--human/--no-human", default=True, help="Show sizes and dates for people.")
@click.option("--no-trunc", is_flag=True, help="Show ids and commands in full.")
@click.option("-q", "--quiet", is_flag=True, help="Show ids only.")
@click.option(
    "--platform", type=value(flags.platform), metavar="OS/ARCH", help="The platform to show, of an image for several."
)
@pass_app
def command(
    app: App, /, image: str, format: str | None, human: bool, no_trunc: bool, quiet: bool, platform: Platform | None
) -> None:
    """Show the steps that made an image, the newest first."""
    with app.open_builder() as builder:
        entries = builder.images.history(image, platform=platform)
    rows = [_row(entry, human=human, full=no_trunc) for entry in entries]
    created = "CreatedSince" if human else "CreatedAt"
    shown = ("ID", created, "CreatedBy", "Size", "Comment")
    for line in render(rows, _HEADERS, shown, "{{.ID}}" if quiet else format):
        click.echo(line)


def _row(entry: Mapping[str, Any], *, human: bool, full: bool) -> dict[str, Any]:
    created, size = float(entry.get("Created") or 0), int(entry.get("Size") or 0)
    command, image = str(entry.get("CreatedBy", "")).replace("\t", " "), str(entry.get("Id", ""))
    if not full and len(command) > _LONGEST:
        command = command[: _LONGEST - 1] + "…"
    return {
        "ID": image if full or image.startswith("<") else names.short(image),
        "CreatedSince": ago(created) if created > _MEANT_AS_NO_DATE else "N/A",
        "CreatedAt": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "CreatedBy": command,
        "Size": show_size(size, 3) if human else str(size),
        "Comment": str(entry.get("Comment", "")),
    }
