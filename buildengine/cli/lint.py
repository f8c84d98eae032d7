"""`pybuild lint`: what is odd in a Dockerfile, without building it; with --fix, mended as far as a machine can."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buildengine.cli import flags
from buildengine.cli.app import App, pass_app
from buildengine.cli.contexts import Inputs, locate
from buildengine.cli.flags import value
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.progress.lines import safe
from buildengine.errors import UserError
from buildengine.values import dataclass

if TYPE_CHECKING:
    from buildengine.cli.request import Assignment
    from frontends.dockerfile.alone import Checked
    from frontends.dockerfile.lines import SourceFile

_FOUND = 1  # exit status: something was found, as `docker buildx build --check` has it
_LARGEST = 16 << 20  # bytes


@click.command(cls=Command)
@click.argument("path", default=".", metavar="[PATH]")
@click.option("-f", "--file", metavar="FILE", help="The Dockerfile; - is standard input (default: PATH/Dockerfile).")
@click.option("--target", default="", metavar="STAGE", help="Look at what this stage needs (default: at every stage).")
@click.option(
    "--build-arg", multiple=True, type=value(flags.assignment), metavar="NAME[=VALUE]", help="Value of an ARG."
)
@click.option("--fix", is_flag=True, help="Mend what leaves the image as it is, and show what was changed.")
@pass_app
def command(
    app: App, /, path: str, file: str | None, target: str, build_arg: tuple[Assignment, ...], fix: bool
) -> None:
    """Tell what is odd in the Dockerfile at PATH, a directory, by the rules of `docker build --check`.

    No base image is looked at. So nothing is said of one for another platform, nor of a variable that is not defined
    where the base image may do so.
    """
    values = {name: os.environ.get(name) if given is None else given for name, given in build_arg}
    options = {f"build-arg:{name}": given for name, given in values.items() if given is not None}
    dockerfile = _read(locate(path, file, sys.stdin.buffer), {**options, **({"target": target} if target else {})})
    if fix:
        dockerfile = dockerfile.fixed()
    checked = dockerfile.checked(dockerfile.source)
    click.echo(_told(checked), nl=False)
    if checked.error is not None:
        sys.exit(app.reporter().build_error(checked.error, None, {dockerfile.source.filename: dockerfile.shown}))
    if checked.findings:
        sys.exit(_FOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dockerfile:
    """`path` None: it came on standard input. `shown` is how the user calls it."""

    source: SourceFile
    path: Path | None
    shown: str
    options: Mapping[str, str]
    ignored: tuple[str, ...]

    def checked(self, source: SourceFile) -> Checked:
        from frontends.dockerfile import alone

        return alone.check(source, self.options, self.ignored)

    def fixed(self) -> _Dockerfile:
        """Mended, in its place. Raises UserError."""
        from dataclasses import replace

        from buildengine.wholefile import destination
        from frontends.dockerfile.mend import mend

        if self.path is None:
            raise Misuse("--fix has no file to write to", "name the Dockerfile: --file FILE")
        mended = mend(self.source, lambda source: self.checked(source).findings)
        if mended != self.source.data:
            click.echo(_difference(self.shown, self.source.data, mended), nl=False)
            with destination(self.path) as fd, open(fd, "wb", closefd=False) as written:
                written.write(mended)
                _take_over(self.path, fd)
        return replace(self, source=replace(self.source, data=mended))


def _take_over(old: Path, fd: int) -> None:
    """Mode and owner stay as they were."""
    status = old.stat()
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    with suppress(PermissionError):  # a group of somebody else's
        os.fchown(fd, status.st_uid, status.st_gid)


def _read(inputs: Inputs, options: Mapping[str, str]) -> _Dockerfile:
    from frontends.dockerfile import ignore
    from frontends.dockerfile.lines import SourceFile

    if "context" in inputs.options or inputs.context_archive is not None:
        raise Misuse("only a directory can be linted", "give its path, or a Dockerfile on standard input: --file -")
    name = inputs.options["filename"]
    path = inputs.directories["dockerfile"] / name if inputs.inline_dockerfile is None else None
    data = _content(path) if path else inputs.inline_dockerfile or b""
    own = _ignore_file(path.with_name(f"{name}.dockerignore")) if path else None
    context = inputs.directories.get("context")
    if own is None and context is not None:
        own = _ignore_file(context / ".dockerignore")
    return _Dockerfile(
        source=SourceFile(filename=name, data=data),
        path=path,
        shown=inputs.shown.get(name, name),
        options=options,
        ignored=ignore.read(SourceFile(filename=".dockerignore", data=own or b"")),
    )


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise UserError(f"{path} is larger than {_LARGEST >> 20} MiB")
    return data


def _ignore_file(path: Path) -> bytes | None:
    return _content(path) if path.is_file() else None


def _told(checked: Checked) -> str:
    """The findings, and how many of them --fix would mend."""
    from frontends.dockerfile import answers
    from frontends.dockerfile.mend import MENDABLE

    text = "".join(f"{safe(line)}\n" for line in answers.printed(checked.findings).split("\n")[:-1])
    number = sum(finding.rule in MENDABLE for finding in checked.findings)
    return text + (f"\n--fix may mend {number} of {len(checked.findings)}\n" if number else "")


def _difference(name: str, old: bytes, new: bytes) -> str:
    """A unified diff. Nothing of the file reaches the terminal unfiltered."""
    import difflib

    before, after = [[safe(line) for line in data.decode("utf-8", "replace").split("\n")] for data in (old, new)]
    lines = difflib.unified_diff(before, after, name, name, lineterm="")
    return "".join(f"{line}\n" for line in lines)
