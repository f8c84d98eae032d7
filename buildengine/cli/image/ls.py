"""`pybuild image ls`: the images of the local store, as `docker image ls` lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from buildengine.builder import ImageInfo
from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.cli.image import names
from buildengine.cli.table import render
from buildengine.cli.usage import ago, moment
from buildengine.errors import UserError
from buildengine.units import show_size

_HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Platforms": "PLATFORMS",
}
_SHOWN = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_SHOWN_WITH_DIGEST = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")


@click.command(cls=Command)
@click.argument("pattern", required=False, metavar="[REPOSITORY[:TAG]]")
@click.option("--digests", is_flag=True, help="Show digests of manifests.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="dangling=true, reference=PATTERN.")
@click.option("--format", metavar="FORMAT", help="table, json, or a template with {{.Field}}.")
@click.option("--no-trunc", is_flag=True, help="Show ids in full.")
@click.option("-q", "--quiet", is_flag=True, help="Show ids only.")
@pass_app
def command(
    app: App,
    /,
    pattern: str | None,
    digests: bool,
    filters: tuple[str, ...],
    format: str | None,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List the images of the local store."""
    wanted = [*filters, *([f"reference={pattern}"] if pattern else [])]
    _check(wanted)
    with app.open_builder() as builder:
        images = _select(builder.images.list(), wanted)
    if quiet:
        format = "{{.ID}}"
    shown = _SHOWN_WITH_DIGEST if digests else _SHOWN
    for line in render((_row(image, no_trunc) for image in images), _HEADERS, shown, format):
        click.echo(line)


def _check(filters: Sequence[str]) -> None:
    for text in filters:
        key, _, value = text.partition("=")
        if key not in ("dangling", "reference") or not value:
            raise UserError(
                f"--filter {text} is not understood", hint="the filters are dangling=true and reference=NAME"
            )
        if key == "dangling" and value not in ("true", "false", "1", "0"):
            raise UserError(f"--filter {text}: dangling is true or false")


def _select(images: Sequence[ImageInfo], filters: Sequence[str]) -> list[ImageInfo]:
    """The newest first. Of several patterns one must match."""
    patterns = [text.partition("=")[2] for text in filters if text.startswith("reference=")]
    for text in filters:
        if text.startswith("dangling="):
            dangling = text in ("dangling=true", "dangling=1")
            images = [image for image in images if (image.name == "") == dangling]
    if patterns:
        images = [image for image in images if any(names.matches(pattern, image) for pattern in patterns)]
    return sorted(images, key=lambda image: (-image.created, image.name))


def _row(image: ImageInfo, full: bool) -> dict[str, Any]:
    repository, tag = names.split(image.name)
    found = names.image_id(image)
    return {
        "Repository": repository,
        "Tag": tag,
        "Digest": image.digest,
        "ID": found if full else names.short(found),
        "CreatedSince": ago(image.created) if image.created > 0 else "N/A",
        "CreatedAt": moment(image.created),
        "Size": show_size(image.size, 3),
        "Platforms": ", ".join(map(str, image.platforms)),
    }
