"""`pybuild imagetools create`: an image of others, or a copy of one, as `docker buildx imagetools create` makes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.flags import value
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.progress.display import MODES, open_display
from buildengine.cli.results import prepare_files, write_whole
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.registries import Combination, Combined

_LONGEST = 1 << 20  # bytes of a descriptor


@click.command(cls=Command)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name of the new image.")
@click.option("-f", "--file", "files", multiple=True, type=Path, metavar="FILE", help="Read a source from FILE.")
@click.option("--append", is_flag=True, help="Take what the first name stands for now before the sources.")
@click.option("--dry-run", is_flag=True, help="Show the new image and push nothing.")
@click.option(
    "--annotation",
    multiple=True,
    type=value(flags.annotation),
    metavar="TYPE:KEY=VALUE",
    help="Annotate it; TYPE: index, or manifest-descriptor, with [PLATFORM].",
)
@click.option(
    "--prefer-index/--no-prefer-index",
    default=True,
    help="Make an index even of a single manifest, in the place of a plain copy.",
)
@click.option(
    "-p",
    "--platform",
    "platforms",
    multiple=True,
    type=value(flags.platforms),
    metavar="PLATFORM[,...]",
    help="Take only what is for these platforms.",
)
@click.option("--metadata-file", type=Path, metavar="FILE", help="Write what was made to FILE, as JSON.")
@click.option("--progress", type=click.Choice(MODES), default="auto", help="How progress is shown.")
@pass_app
def command(
    app: App,
    /,
    sources: tuple[str, ...],
    tags: tuple[str, ...],
    files: tuple[Path, ...],
    append: bool,
    dry_run: bool,
    annotation: tuple[flags.Annotation, ...],
    prefer_index: bool,
    platforms: tuple[tuple[Platform, ...], ...],
    metadata_file: Path | None,
    progress: str,
) -> None:
    """Make an image of SOURCEs: references, digests, or descriptors as JSON, which may be in files.

    An index is copied as it is when it is the only source; so is a manifest with --prefer-index=false.
    """
    if not sources and not files:
        raise Misuse("there are no sources", "e.g. pybuild imagetools create -t app:1 app:1-amd64 app:1-arm64")
    if append and not tags:
        raise Misuse("--append needs --tag: the image to append to")
    combination = Combination(
        sources=(*map(_read, files), *sources),
        targets=tags,
        append=append,
        annotations=flags.annotation_attributes(annotation),
        platforms=tuple(platform for several in platforms for platform in several),
        prefer_index=prefer_index,
        dry_run=dry_run,
    )
    if not dry_run:
        prepare_files(metadata_file)
    with open_display("quiet" if dry_run else progress, sys.stderr) as display:
        made = app.image_tools.create(combination, display.event, display.tick)
    if dry_run:
        sys.stdout.flush()
        sys.stdout.buffer.write(made.raw + b"\n")
    elif metadata_file is not None:
        _write_metadata(metadata_file, made)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_LONGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read the source {file}: {error.strerror}") from None
    if len(data) > _LONGEST:
        raise UserError(f"the source {file} is larger than {_LONGEST >> 20} MiB")
    return data.decode(errors="surrogateescape")


def _write_metadata(file: Path, made: Combined) -> None:
    document = {"containerimage.descriptor": made.descriptor, "image.name": ",".join(made.repositories)}
    write_whole(file, json.dumps(document, indent=2).encode())
