"""Build files of another language: a syntax directive names the image of its frontend, which gateway.v0 runs, or with
`python://` one that is installed where the engine is.

Images of this very language are not run: it is built in (`frontends.catalog.built_in`).

Facts: BuildKit frontend/dockerfile/builder/build.go (forwardGateway).
"""

from __future__ import annotations

from buildengine.errors import BuildError, Location
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends import catalog
from frontends.dockerfile import contexts, directives
from frontends.dockerfile.lines import SourceFile
from frontends.dockerfile.options import Options
from frontends.gateway import FrontendRequest, FrontendResult, Gateway

GATEWAY = "gateway.v0"
_INSTALLED = "python://"  # a frontend that is a package, beside the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """`command_line` is the image with what is written behind it. `location` is the directive, None for an option."""

    image: str
    command_line: str
    location: Location | None = None


def other_language(file: SourceFile, options: Options, platform: Platform) -> Language | None:
    """What the file, or a build argument in its place, says of another frontend. Raises UserError."""
    asked = None if options.is_forwarded else _asked(file, options)
    if asked is None or asked.image.startswith(_INSTALLED):
        return asked
    try:
        is_ours = catalog.built_in(asked.image) == "dockerfile.v0"
    except BuildError as error:
        _point_at(asked, error)
        raise
    return None if is_ours and contexts.find(options, asked.image, platform) is None else asked


def _asked(file: SourceFile, options: Options) -> Language | None:
    if options.syntax.strip():
        return Language(image=options.syntax.strip().partition(" ")[0], command_line=options.syntax)
    found = directives.detect_syntax(file.data)
    if found is None or not found.image:
        return None
    location = file.at_lines(found.line, found.line)
    return Language(image=found.image, command_line=found.command_line, location=location)


async def forward(gateway: Gateway, request: FrontendRequest, language: Language) -> FrontendResult:
    """What the other frontend makes of the same request. Raises BuildError."""
    is_installed = language.image.startswith(_INSTALLED)
    name = language.image.removeprefix(_INSTALLED) if is_installed else GATEWAY
    options = {**request.options, "cmdline": language.command_line}
    if not is_installed:
        options["source"] = language.image
    try:
        return await gateway.run_frontend(name, options, request.inputs)
    except BuildError as error:
        _point_at(language, error)
        raise


def _point_at(language: Language, error: BuildError) -> None:
    """The error is at the directive, or of the build argument, unless it is about a place of its own."""
    if language.location is not None:
        error.located(language.location)
    elif not error.locations:
        error.message = f"failed with build-arg:BUILDKIT_SYNTAX = {language.command_line}: {error.message}"
