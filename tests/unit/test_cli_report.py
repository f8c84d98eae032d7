"""How errors look, letter by letter."""

from __future__ import annotations

import io
from textwrap import dedent

import click
import pytest

from buildengine import __version__
from buildengine.cli.flags import BadValue
from buildengine.cli.progress.model import Trace
from buildengine.cli.report import Reporter, excerpt
from buildengine.errors import (
    BuildError,
    ConfigError,
    ContextError,
    ExecFailed,
    HostError,
    InternalError,
    Location,
    ParseError,
    RegistryError,
    SolveError,
    SourceRange,
    StoreError,
    UserError,
)
from buildengine.events import LogEvent, Outcome, VertexEvent

DOCKERFILE = b"FROM debian:12\nCOPY . /src\nRUN make\nRUN make \\\n  install\nCMD app\n"


def place(start: int, end: int | None = None, *, text: bytes = DOCKERFILE, name: str = "Dockerfile") -> Location:
    return Location(filename=name, ranges=(SourceRange(start_line=start, end_line=end or start),), text=text)


def report(
    error: BuildError, trace: Trace | None = None, shown: dict[str, str] | None = None, *, debug: bool = False
) -> tuple[int, str]:
    stream = io.StringIO()
    status = Reporter(stream, colour=False, debug=debug).build_error(error, trace, shown)
    return status, stream.getvalue()


def expect(text: str) -> str:
    return dedent(text).lstrip("\n")


def failed_trace(*lines: bytes) -> Trace:
    trace = Trace(keep=200)
    trace.apply(VertexEvent(digest="v", name="[3/3] RUN make", started=1.0))
    for line in lines:
        trace.apply(LogEvent(vertex="v", stream=1, data=line, timestamp=1.5))
    trace.apply(
        VertexEvent(digest="v", name="[3/3] RUN make", started=1.0, completed=2.0, outcome=Outcome.FAILED, error="x")
    )
    return trace


def test_a_failed_step_with_everything() -> None:
    error = ExecFailed(
        'process "/bin/sh -c make" did not complete successfully: exit code: 2', exit_code=2, hint="look at main.c"
    ).located(place(3), vertex="v")
    trace = failed_trace(b"cc main.c\n", b"\x1b[31mmain.c:7: error\x1b[0m\n", b"\xff no newline")
    assert report(SolveError((error,)), trace, {"Dockerfile": "app/Dockerfile.dev"}) == (
        1,
        expect(
            """
            error: process "/bin/sh -c make" did not complete successfully: exit code: 2
            app/Dockerfile.dev:3
            --------------------
               1 |     FROM debian:12
               2 |     COPY . /src
               3 | >>> RUN make
               4 |     RUN make \\
               5 |       install
            --------------------
            the last output of [3/3] RUN make:
                cc main.c
                main.c:7: error
                \\xff no newline
            hint: look at main.c
            """
        ),
    )


def test_output_that_only_the_error_has() -> None:
    error = ExecFailed("exit code: 1", output=b"one\r\ntwo\rlast\n")
    assert report(error) == (1, "error: exit code: 1\nits last output:\n    one\n    last\n")
    assert report(error.located(vertex="elsewhere"), failed_trace(b"other\n"))[1].endswith("    one\n    last\n")


@pytest.mark.parametrize(
    ("start", "end", "lines"),
    [
        (1, 1, ["   1 | >>> FROM debian:12", "   2 |     COPY . /src", "   3 |     RUN make"]),
        (6, 6, ["   4 |     RUN make \\", "   5 |       install", "   6 | >>> CMD app"]),
        (
            4,
            5,
            ["   3 |     RUN make", "   4 | >>> RUN make \\", "   5 | >>>   install", "   6 |     CMD app"],
        ),
        (5, 99, ["   4 |     RUN make \\", "   5 | >>>   install", "   6 | >>> CMD app"]),
    ],
)
def test_excerpts_as_buildkit_prints_them(start: int, end: int, lines: list[str]) -> None:
    rule = "-" * 20
    assert list(excerpt(place(start, end), {})) == [
        f"Dockerfile:{start}",
        rule,
        *(" " + line[1:] for line in lines),
        rule,
    ]


def test_places_without_a_text_or_outside_it() -> None:
    assert list(excerpt(place(3, text=b""), {})) == ["Dockerfile:3"]
    assert list(excerpt(place(30), {})) == ["Dockerfile:30"]
    assert list(excerpt(Location(filename="x.toml", ranges=()), {})) == ["x.toml"]
    evil = place(1, text=b"FROM\t\x1b[2Jx\r\n\xff", name="a\x1b[2Jb")
    assert list(excerpt(evil, {}))[::2] == ["ab:1", "   1 | >>> FROM    x", "-" * 20]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("x"), 1),
        (ParseError("x"), 1),
        (ConfigError("x"), 1),
        (ExecFailed("x"), 1),
        (ContextError("x"), 1),
        (RegistryError("x"), 1),
        (HostError("x"), 3),
        (StoreError("x"), 4),
        (SolveError((HostError("x"), UserError("y"))), 3),
        (SolveError((SolveError((StoreError("x"),)),)), 4),
    ],
)
def test_the_class_decides_the_exit_status(error: BuildError, status: int) -> None:
    assert report(error)[0] == status


def test_the_first_failure_leads_and_the_others_are_named() -> None:
    first = UserError("first", hint="try")
    assert report(SolveError((first, HostError("sec\x1b[2Jond"), UserError("third"))))[1] == (
        "error: first\nalso:\n  - second\n  - third\nhint: try\n"
    )


def test_messages_of_several_lines_and_colours() -> None:
    assert report(UserError("one\n\ttwo\x07"))[1] == "error: one\n        two\n"
    stream = io.StringIO()
    Reporter(stream, colour=True).build_error(UserError("x", hint="y"))
    assert stream.getvalue() == "\x1b[1;31merror:\x1b[0m x\n\x1b[1mhint:\x1b[0m y\n"


def test_a_traceback_only_on_request() -> None:
    def fail() -> None:
        raise UserError("x")

    with pytest.raises(UserError) as caught:
        fail()
    assert "Traceback" not in report(caught.value)[1]
    assert "in fail" in report(caught.value, debug=True)[1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InternalError("impossible"), "error: internal error: impossible"),
        (SolveError((InternalError("impossible"),)), "error: internal error: impossible"),
    ],
)
def test_our_own_bugs_say_what_to_report(error: BuildError, message: str) -> None:
    status, text = report(error)
    assert status == 70
    assert "InternalError: impossible" in text
    assert f"{message}\nThis is a bug in pybuild. Please report it with the lines above and these:\n" in text
    assert f"    pybuild {__version__}\n    python 3." in text
    assert "    command: " in text


def test_any_other_exception_is_a_bug_too() -> None:
    stream = io.StringIO()
    assert Reporter(stream, colour=False).bug(ZeroDivisionError("by zero")) == 70
    assert "error: internal error: ZeroDivisionError: by zero\n" in stream.getvalue()


def test_usage_errors_name_the_flag_the_way_out_and_the_help() -> None:
    command = click.Command("build", params=[click.Option(["-t", "--tag"]), click.Argument(["context"])])
    context = click.Context(command, info_name="pybuild build")
    bad = BadValue(UserError("'X' is no name", hint="lower case"))
    bad.ctx, bad.param = context, command.params[0]
    stream = io.StringIO()
    assert Reporter(stream, colour=False).usage(bad) == 2
    assert stream.getvalue() == ("error: -t/--tag: 'X' is no name\nhint: lower case\nSee 'pybuild build --help'.\n")
    stream = io.StringIO()
    Reporter(stream, colour=False).usage(click.UsageError("Too many arguments."))
    assert stream.getvalue() == "error: too many arguments\n"
