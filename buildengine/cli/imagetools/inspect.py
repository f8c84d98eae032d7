"""`pybuild imagetools inspect`: what an image in a registry is, as `docker buildx imagetools inspect` shows it."""

from __future__ import annotations

import re
import sys

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.imagetools.listing import listing
from buildengine.cli.table import asked_for, at, fill
from buildengine.errors import UserError

_WHOLE_MANIFEST = re.compile(r"\s*\{\{\s*\.Manifest\s*\}\}\s*")
_PARTS = {"image": "image", "sbom": "SBOM", "provenance": "Provenance"}
_KNOWN = ("name", "manifest", *_PARTS)


@click.command(cls=Command)
@click.argument("name", metavar="NAME")
@click.option("--raw", is_flag=True, help="Show the manifest or index byte for byte.")
@click.option(
    "--format",
    metavar="TEMPLATE",
    help="Fields of .Name, .Manifest, .Image, .Provenance, .SBOM: {{json .Manifest}}, {{.Manifest.Digest}}.",
)
@pass_app
def command(app: App, /, name: str, raw: bool, format: str | None) -> None:
    """Show what NAME is in its registry.

    Of an image for several platforms, .Image, .Provenance and .SBOM are by platform:
    {{(index .Image "linux/arm64").Created}}.
    """
    if raw and format:
        raise Misuse("--raw and --format do not go together")
    if format and not _WHOLE_MANIFEST.fullmatch(format):
        document = app.image_tools.describe(name, _wanted(format))
        # As buildx: without a line end, which is for people only.
        click.echo(fill(format, lambda keys: at(document, keys), indent=2), nl=sys.stdout.isatty())
        return
    found = app.image_tools.inspect(name)
    if raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.raw)  # without a line end: people hash it
        sys.stdout.buffer.flush()
        return
    for line in listing(found):
        click.echo(line)


def _wanted(template: str) -> tuple[str, ...]:
    """The parts that `template` asks for, beside what is known anyway. Raises UserError."""
    names = [keys[0] if keys else "Image" for keys in asked_for(template)]
    for name in names:
        if name.lower() not in _KNOWN:
            raise UserError(
                f"--format: there is no field {name!r}", hint="the fields are Name, Manifest, Image, Provenance, SBOM"
            )
    wanted = {name.lower() for name in names}
    return tuple(part for name, part in _PARTS.items() if name in wanted)
