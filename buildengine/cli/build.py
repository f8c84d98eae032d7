"""`pybuild build`: flags in, the build on the screen, its result on standard output and in files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from buildengine.builder import BuildOutcome, BuildRequest
from buildengine.cli import attests, flags, legacy, questions
from buildengine.cli.app import App, pass_app
from buildengine.cli.contexts import Inputs, locate
from buildengine.cli.flags import value
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.progress.display import MODES, Display, is_terminal, open_display
from buildengine.cli.progress.lines import safe
from buildengine.cli.report import BuildFailed
from buildengine.cli.request import BuildFlags, make_request
from buildengine.cli.results import check_destinations, image_id, prepare_files, write_image_id, write_metadata
from buildengine.errors import BuildError, UserError

_SHOWN = ("auto", "tty", "plain")  # modes in which people read along


@click.command(cls=Command, options_metavar="[OPTIONS]")
@click.argument("context", required=False, metavar="PATH | URL | -")
@click.option("-t", "--tag", multiple=True, type=value(flags.tag), metavar="NAME[:TAG]", help="Name of the image.")
@click.option("-f", "--file", metavar="FILE", help="The Dockerfile; - is standard input (default: PATH/Dockerfile).")
@click.option(
    "--frontend",
    metavar="NAME",
    help="What reads the file: one that is installed (default: what the file's name says).",
)
@click.option(
    "--opt", multiple=True, type=value(flags.assignment), metavar="NAME=VALUE", help="Option for the frontend."
)
@click.option("--target", metavar="STAGE", help="The stage to build (default: the last).")
@click.option(
    "--build-arg",
    multiple=True,
    type=value(flags.assignment),
    metavar="NAME[=VALUE]",
    help="Value of an ARG; a name alone takes it from the environment.",
)
@click.option(
    "--platform",
    multiple=True,
    type=value(flags.platforms),
    envvar="DOCKER_DEFAULT_PLATFORM",
    metavar="OS/ARCH",
    help="Platform to build for.",
)
@click.option(
    "-o",
    "--output",
    multiple=True,
    type=value(flags.output),
    metavar="OUTPUT",
    help="Where the result goes: type=image, registry, oci, docker, tar, local or cacheonly, with dest=PATH; "
    "PATH alone is a directory, - a tar on standard output (default: the local image store).",
)
@click.option("--load", is_flag=True, help="Also put the image into the local store.")
@click.option("--push", is_flag=True, help="Push the image to the registries that its names say.")
@click.option("--no-cache", is_flag=True, help="Run every step.")
@click.option("--no-cache-filter", multiple=True, metavar="STAGE", help="Run every step of this stage.")
@click.option("--pull", is_flag=True, help="Ask the registry for newer base images.")
@click.option(
    "--cache-from",
    multiple=True,
    type=value(flags.cache_from),
    metavar="type=registry,ref=REF|REF",
    help="A cache to look for steps in as well: an image that was built with --cache-to type=inline.",
)
@click.option(
    "--cache-to",
    multiple=True,
    type=value(flags.cache_to),
    metavar="type=inline",
    help="Where the cache of this build goes: into the image.",
)
@click.option(
    "--secret",
    multiple=True,
    type=value(flags.secret),
    metavar="id=ID[,src=FILE|,env=NAME]",
    help="A secret for RUN --mount=type=secret.",
)
@click.option(
    "--ssh",
    multiple=True,
    type=value(flags.ssh),
    metavar="default|ID[=SOCKET]",
    help="An SSH agent for RUN --mount=type=ssh.",
)
@click.option("--label", multiple=True, type=value(flags.assignment), metavar="NAME=VALUE", help="Label of the image.")
@click.option(
    "--source-policy-file",
    type=Path,
    metavar="FILE",
    help="Rules about what may be read, and what is read in its place, as JSON.",
)
@click.option(
    "--build-context",
    multiple=True,
    type=value(flags.named_context),
    metavar="NAME=VALUE",
    help="What stands for the stage or image NAME: a directory, docker-image://REF, oci-layout://DIR[:TAG], or a URL.",
)
@click.option(
    "--annotation",
    multiple=True,
    type=value(flags.annotation),
    metavar="[TYPE:]KEY=VALUE",
    help="Annotation of the image; TYPE: manifest, index, manifest-descriptor or index-descriptor, with [PLATFORM].",
)
@click.option(
    "--attest",
    multiple=True,
    type=value(attests.attest),
    metavar="type=provenance|sbom[,KEY=VALUE]",
    help="What to attest of the result.",
)
@click.option(
    "--provenance",
    type=value(attests.shorthand("provenance")),
    metavar="true|false|mode=min|mode=max,...",
    help="Attest how the result was built: --attest type=provenance,...",
)
@click.option(
    "--sbom",
    type=value(attests.shorthand("sbom")),
    metavar="true|false|generator=IMAGE,...",
    help="Attest what is in the result, as a scanner sees it: --attest type=sbom,...",
)
@click.option(
    "--network",
    type=value(flags.network),
    default="default",
    metavar="default|none|host",
    help="Network of RUN steps.",
)
@click.option(
    "--allow",
    multiple=True,
    type=value(flags.entitlement),
    metavar="ENTITLEMENT",
    help="Allow network.host or security.insecure.",
)
@click.option(
    "--ulimit", multiple=True, type=value(flags.ulimit), metavar="NAME=SOFT[:HARD]", help="Limit of RUN steps."
)
@click.option("--shm-size", type=value(flags.memory), metavar="SIZE", help="Size of /dev/shm in RUN steps.")
@click.option(
    "--add-host",
    multiple=True,
    type=value(flags.extra_hosts),
    metavar="HOST:IP",
    help="A line in /etc/hosts of RUN steps.",
)
@click.option("--cgroup-parent", type=value(flags.cgroup), metavar="CGROUP", help="Parent cgroup of RUN steps.")
@click.option(
    "--call",
    type=value(questions.parse),
    metavar="METHOD[,format=json]",
    help="Build nothing, but tell: check (what is odd), outline (arguments, secrets, agents of the target), targets, "
    "subrequests.describe (what else may be asked).",
)
@click.option("--check", is_flag=True, help="The same as --call=check.")
@click.option("--print", "call", type=value(questions.parse), hidden=True)
@click.option(
    "--progress",
    type=click.Choice(MODES),
    default="auto",
    help="How progress is shown (auto: tty on a terminal, else plain).",
)
@click.option("--explain", is_flag=True, help="Say of each step why it ran, or why it did not have to.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image id and nothing else.")
@click.option("--iidfile", type=Path, metavar="FILE", help="Write the image id to FILE.")
@click.option("--metadata-file", type=Path, metavar="FILE", help="Write what is known of the result to FILE, as JSON.")
@legacy.flags
@pass_app
def command(app: App, /, **options: Any) -> None:
    """Build an image from the Dockerfile and the files at PATH or URL, or on standard input (-)."""
    if options["context"] is None:
        raise Misuse("the build context is missing", "e.g. pybuild build . for the current directory")
    given = BuildFlags(**options)
    mode = _progress_mode(given)
    inputs = locate(given.context, given.file, sys.stdin.buffer, is_needed=not given.frontend)
    request = _checked_request(given, inputs)
    outcome = _build(app, request, inputs, mode)
    if given.metadata_file is not None:
        write_metadata(given.metadata_file, outcome)
    if given.question is not None:
        _answer(app, given.question, outcome, inputs)
    if mode == "quiet" and image_id(outcome) and all(export.dest != "-" for export in request.exports):
        click.echo(image_id(outcome))
    if given.iidfile is not None:
        write_image_id(given.iidfile, outcome)


def _answer(app: App, question: questions.Question, outcome: BuildOutcome, inputs: Inputs) -> NoReturn:
    from buildengine.cli.answered import printed

    said = printed(question, outcome.answer, inputs.shown)
    click.echo("\n".join(map(safe, said.text.split("\n"))) if sys.stdout.isatty() else said.text, nl=False)
    sys.exit(app.reporter().build_error(said.error, None, inputs.shown) if said.error is not None else said.status)


def _checked_request(given: BuildFlags, inputs: Inputs) -> BuildRequest:
    try:
        request = make_request(given, inputs, os.environ)
        check_destinations(request.exports, sys.stdout)
        prepare_files(given.iidfile, given.metadata_file)
    except UserError as error:  # the flags are at fault
        raise Misuse(error.message, error.hint) from None
    return request


def _progress_mode(given: BuildFlags) -> str:
    mode = given.progress
    if given.quiet and given.explain:
        raise Misuse("--quiet and --explain exclude each other")
    if given.quiet and mode not in ("auto", "quiet"):
        raise Misuse(f"--quiet and --progress {mode} exclude each other")
    if mode == "auto" and os.environ.get("BUILDKIT_PROGRESS"):
        mode = os.environ["BUILDKIT_PROGRESS"]
        if mode not in MODES:
            raise Misuse(f"BUILDKIT_PROGRESS: {mode!r} is not one of {', '.join(MODES)}")
    if mode == "tty" and not is_terminal(sys.stderr):
        raise Misuse("--progress tty: standard error is not a terminal")
    return "quiet" if given.quiet else mode


def _build(app: App, request: BuildRequest, inputs: Inputs, mode: str) -> BuildOutcome:
    display: Display | None = None
    try:
        with app.open_builder() as builder, open_display(mode, sys.stderr) as display:
            outcome = builder.build(request, display.event, display.tick)
    except BuildError as error:
        if display is None:
            raise
        _show_explanations(app, display, mode)
        from buildengine.cli.missing import advise

        advise(error, inputs.directories, inputs.options.get("filename", "Dockerfile"))
        raise BuildFailed(error, display.trace, inputs.shown) from None
    _show_explanations(app, display, mode)
    if mode in _SHOWN:
        app.reporter().warnings(display.trace.warnings, inputs.shown)
    return outcome


def _show_explanations(app: App, display: Display, mode: str) -> None:
    if display.trace.explanations and mode in _SHOWN:
        from buildengine.cli.explained import lines

        app.reporter().explanations(lines(display.trace.explanations))
