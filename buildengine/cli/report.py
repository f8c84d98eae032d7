"""How an error looks to whoever typed the command: whose it is, where, what the step said, what to try.

    error: process "/bin/sh -c make" did not complete successfully: exit code: 2
    Dockerfile:3
    --------------------
       1 |     FROM debian:12
       2 |     COPY . /src
       3 | >>> RUN make
    --------------------
    the last output of [3/3] RUN make:
        main.c:7: error: expected ';'
    hint: ...

Everything but the frame comes from files, images and programs, so none of it reaches the terminal unfiltered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from buildengine.cli.progress.lines import LineBuffer, safe
from buildengine.errors import BuildError, ExecFailed, InternalError, Location, SolveError

if TYPE_CHECKING:
    import click

    from buildengine.cli.progress.model import Trace
    from buildengine.events import WarningEvent

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
INTERNAL_STATUS = 70

_RULE = "-" * 20
_LONGEST_QUOTED = 240  # characters of a line that is shown for its place
_MOST_QUOTED = 60  # lines
_LONGEST_MESSAGE = 1000  # and of one that is read
_RED, _BOLD, _YELLOW, _PLAIN = "\x1b[1;31m", "\x1b[1m", "\x1b[33m", "\x1b[0m"


class BuildFailed(Exception):
    """A BuildError together with what the command knows: the steps, and the names under which the user knows files."""

    def __init__(self, error: BuildError, trace: Trace, shown: Mapping[str, str]) -> None:
        super().__init__(error.message)
        self.error = error
        self.trace = trace
        self.shown = shown


def exit_status(error: BuildError) -> int:
    return exit_status(error.first) if isinstance(error, SolveError) else error.exit_status


class Reporter:
    """Writes to `stream`, in colours where `colour` says so. `debug` adds the traceback of every error."""

    def __init__(self, stream: IO[str], *, colour: bool, debug: bool = False) -> None:
        self._stream = stream
        self._colour = colour
        self._debug = debug

    def build_error(self, error: BuildError, trace: Trace | None = None, shown: Mapping[str, str] | None = None) -> int:
        """Report `error`; the exit status for it."""
        first = error.first if isinstance(error, SolveError) else error
        if isinstance(first, InternalError):
            return self.bug(first)
        self._error(first.message)
        for location in first.locations:
            self._lines(excerpt(location, shown or {}))
        self._lines(_output_of(first, trace))
        if isinstance(error, SolveError) and len(error.failures) > 1:
            self._lines(_others(error.failures[1:]))
        self._hint(first.hint)
        if self._debug:
            self._traceback(first)
        return exit_status(error)

    def usage(self, error: click.ClickException) -> int:
        """A wrong flag, argument or command."""
        self._error(_usage_message(error))
        self._hint(getattr(error, "hint", None))
        context = getattr(error, "ctx", None)
        if context is not None:
            self._lines([f"See '{context.command_path} --help'."])
        return USAGE_STATUS

    def bug(self, error: BaseException) -> int:
        """An error of ours: everything that a report of it needs."""
        self._traceback(error)
        name = "" if isinstance(error, InternalError) else f"{type(error).__name__}: "
        self._error(f"internal error: {name}{error}")
        self._lines(
            [
                "This is a bug in pybuild. Please report it with the lines above and these:",
                *(f"    {line}" for line in about()),
                f"    command: {safe(' '.join(sys.argv))}",
            ]
        )
        return INTERNAL_STATUS

    def warnings(self, warnings: Sequence[WarningEvent], shown: Mapping[str, str]) -> None:
        """What a build that went well should still tell, once each."""
        found = list(dict.fromkeys(warnings))
        if not found:
            return
        number = "1 warning found" if len(found) == 1 else f"{len(found)} warnings found"
        more = "" if self._debug else " (use --debug to expand)"
        self._lines(["", self._coloured(_YELLOW, f"{number}{more}:")])
        for warning in found:
            self._lines([f" - {safe(warning.message)}"])
            if self._debug:
                self._lines(safe(line) for line in warning.detail)
                self._lines([f"More info: {safe(warning.url)}"] if warning.url else [])
                self._lines(excerpt(warning.location, shown) if warning.location else [])

    def explanations(self, lines: Iterable[str]) -> None:
        """What `buildengine.cli.explained` has made of a build."""
        self._lines(["", *lines])

    def _error(self, message: str) -> None:
        """What follows the first line is indented: no name in it can pass for a line of ours."""
        first, *rest = (_cut(line, _LONGEST_MESSAGE) for line in _clean_lines(message))
        self._lines([self._coloured(_RED, "error:") + " " + first, *(f"    {line}".rstrip() for line in rest)])

    def _hint(self, hint: str | None) -> None:
        if hint:
            self._lines([self._coloured(_BOLD, "hint:") + " " + _cut(safe(hint), _LONGEST_MESSAGE)])

    def _traceback(self, error: BaseException) -> None:
        import traceback

        self._lines(_clean_lines("".join(traceback.format_exception(error)).rstrip()))

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def _lines(self, lines: Iterable[str]) -> None:
        self._stream.writelines(line + "\n" for line in lines)
        self._stream.flush()


def excerpt(location: Location, shown: Mapping[str, str]) -> Iterator[str]:
    """The lines of the place and some around it, as BuildKit prints them (solver/errdefs/source.go)."""
    lines = location.text.removesuffix(b"\n").split(b"\n")
    start = min((place.start_line for place in location.ranges), default=0)
    end = min(max((max(place.end_line, place.start_line) for place in location.ranges), default=0), len(lines))
    if not location.text or not 1 <= start <= end:
        if location.filename:
            yield safe(shown.get(location.filename, location.filename)) + (f":{start}" if start else "")
        return
    around = 2 if start == end else 1
    numbers = range(max(1, start - around), min(len(lines), end + around) + 1)
    yield f"{safe(shown.get(location.filename, location.filename))}:{start}"
    yield _RULE
    for number in numbers[:_MOST_QUOTED]:
        (line,) = _clean_lines(lines[number - 1].decode(errors="backslashreplace"))
        is_meant = any(place.start_line <= number <= max(place.end_line, place.start_line) for place in location.ranges)
        yield f" {number:3} | {'>>>' if is_meant else '   '} {_cut(line, _LONGEST_QUOTED)}".rstrip()
    if len(numbers) > _MOST_QUOTED:
        yield f" ... | ... and {len(numbers) - _MOST_QUOTED} lines more"
    yield _RULE


def _output_of(error: BuildError, trace: Trace | None) -> Iterator[str]:
    """The end of what the failed step printed: as the display has it, or as the error brought it."""
    step = trace.find(error.vertex) if trace is not None else None
    lines = step.last_lines(len(step.tail) + 2) if step is not None else []
    if not lines and isinstance(error, ExecFailed) and error.output:
        buffer = LineBuffer()
        lines = [line.text for line in [*buffer.feed(error.output, 0.0), *buffer.flush()]]
    if lines:
        yield f"the last output of {step.name}:" if step is not None else "its last output:"
        yield from (f"    {_cut(line, _LONGEST_MESSAGE)}".rstrip() for line in lines)


def _others(failures: Sequence[BuildError]) -> Iterator[str]:
    yield "also:"
    for failure in failures:
        yield f"  - {_cut(safe(failure.message), _LONGEST_MESSAGE)}"


def _usage_message(error: click.ClickException) -> str:
    """click's message with the flag in front, and without what it says of the value's type."""
    import click

    message = error.format_message()
    missing = isinstance(error, click.MissingParameter)
    if isinstance(error, click.BadParameter) and error.param is not None and not missing:
        message = f"{_where_it_was_given(error.param, error.ctx)}: {error.message}"
    message = message.rstrip(".")
    return message[:1].lower() + message[1:] if message[1:2].islower() else message


def _where_it_was_given(parameter: click.Parameter, context: click.Context | None) -> str:
    """The flag, the argument, or the variable that stood in for the flag."""
    from click.core import ParameterSource

    source = context.get_parameter_source(parameter.name or "") if context is not None else None
    if source is ParameterSource.ENVIRONMENT and isinstance(parameter.envvar, str):
        return parameter.envvar
    return "/".join(parameter.opts) if parameter.param_type_name == "option" else parameter.human_readable_name


def _clean_lines(text: str) -> list[str]:
    return [safe(line.expandtabs(4)) for line in text.split("\n")]


def _cut(line: str, longest: int) -> str:
    """The beginning and, as that is where the reason stands, the end of a line that nobody would read."""
    if len(line) <= longest:
        return line
    return f"{line[: longest * 3 // 4]} ...({len(line) - longest} characters)... {line[-longest // 4 :]}"


def about() -> list[str]:
    """What we are and stand on, for bug reports and `pybuild version`."""
    import os
    import platform

    from buildengine import __version__

    kernel = os.uname()
    return [
        f"pybuild {__version__}",
        f"python {platform.python_version()}",
        f"kernel {kernel.sysname} {kernel.release} {kernel.machine}",
    ]
