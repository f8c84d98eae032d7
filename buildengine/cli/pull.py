"""`pybuild pull`: an image from a registry into the local store, told as docker tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.flags import value
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.image import names
from buildengine.reference import Reference, parse, parse_repository

if TYPE_CHECKING:
    from buildengine.digest import Digest
    from buildengine.platform import Platform


_GIVEN = click.core.ParameterSource.COMMANDLINE


@click.command(cls=Command)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option(
    "--platform",
    type=value(flags.platforms),
    envvar="DOCKER_DEFAULT_PLATFORM",
    metavar="OS/ARCH",
    help="Platform to fetch (default: this host's).",
)
@click.option("--all-platforms", is_flag=True, help="Fetch all platforms of the image.")
@click.option("-q", "--quiet", is_flag=True, help="Print the whole name of the image and nothing else.")
@pass_app
def command(app: App, /, name: str, platform: tuple[Platform, ...] | None, all_platforms: bool, quiet: bool) -> None:
    """Fetch an image from a registry into the local store."""
    from buildengine.builder import PullRequest

    if len(platform or ()) > 1:
        raise Misuse("--platform names several platforms", "--all-platforms fetches all that there are")
    if all_platforms and click.get_current_context().get_parameter_source("platform") is _GIVEN:
        raise Misuse("--platform and --all-platforms exclude each other")
    reference = parse(name)
    request = PullRequest(reference=name, platform=platform[0] if platform else None, all_platforms=all_platforms)
    say = (lambda line: None) if quiet else click.echo
    if parse_repository(name) != reference:
        say(f"Using default tag: {reference.tag}")
    say(f"{reference.digest or reference.tag}: Pulling from {reference.path}")

    def on_layer(digest: Digest, fetched: bool) -> None:
        say(f"{names.short(digest)}: {'Pull complete' if fetched else 'Already exists'}")

    with app.open_builder() as builder:
        pulled = builder.pull(request, on_layer)
    say(f"Digest: {pulled.digest}")
    state = "Downloaded newer image" if pulled.is_new else "Image is up to date"
    say(f"Status: {state} for {_familiar(reference)}")
    click.echo(pulled.name)


def _familiar(reference: Reference) -> str:
    """The short name, of an image named by its digest without the tag beside it."""
    return parse(f"{reference.name}@{reference.digest}").familiar if reference.digest else reference.familiar
