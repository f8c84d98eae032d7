"""`pybuild image inspect`: everything about images, as `docker image inspect` shows it."""

from __future__ import annotations

import json
from functools import partial

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.failures import Failures
from buildengine.cli.flags import value
from buildengine.cli.groups import Command
from buildengine.cli.table import at, fill
from buildengine.platform import Platform


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--format", metavar="TEMPLATE", help="Show only fields: {{.Id}}, {{json .Config.Env}}.")
@click.option(
    "--platform", type=value(flags.platform), metavar="OS/ARCH", help="The platform to show, of an image for several."
)
@pass_app
def command(app: App, /, images: tuple[str, ...], format: str | None, platform: Platform | None) -> None:
    """Show everything about images, as JSON.

    RootFS.Layers are the diff ids; Layers are the blobs as they are pushed, with their compressed digests.
    """
    documents, failures = [], Failures()
    with app.open_builder() as builder:
        for image in images:
            with failures:
                documents.append(builder.images.inspect(image, platform=platform))
    if format in (None, "json"):
        click.echo(json.dumps(documents, indent=4, ensure_ascii=False))
    else:
        for document in documents:
            click.echo(fill(format or "", partial(at, document)))
    failures.raise_any()
