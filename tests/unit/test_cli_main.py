"""The program as a whole: what it imports, how it ends, and that its end is always said in a sentence."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from pathlib import Path

import pytest

from buildengine import __version__
from buildengine.builder import Builder, Images
from buildengine.cli.app import App
from buildengine.cli.main import main
from buildengine.errors import BuildError, ExecFailed, HostError, Location, SolveError, SourceRange
from buildengine.events import LogEvent, Outcome, VertexEvent
from tests.fakes.builder import FakeBuilder, FakeImages, run_cli


@pytest.fixture(autouse=True)
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BUILDKIT_PROGRESS", "PYBUILD_CONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Dockerfile").write_bytes(b"FROM scratch\nRUN make\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_and_version() -> None:
    for args in (["--help"], ["-h"], ["build", "-h"], ["image", "--help"], ["image", "ls", "-h"], ["debug", "-h"]):
        ran = run_cli(FakeBuilder(), *args)
        assert (ran.status, ran.stderr) == (0, "")
        assert ran.stdout.startswith("Usage: pybuild")
    assert run_cli(FakeBuilder(), "--version").stdout == f"pybuild {__version__}\n"
    assert run_cli(FakeBuilder(), "version").stdout.startswith(f"pybuild {__version__}\npython 3.")


def test_no_command_shows_the_help_and_is_an_error() -> None:
    ran = run_cli(FakeBuilder())
    assert (ran.status, ran.stdout) == (2, "")
    assert "Commands:\n  build" in ran.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["biuld", "."], "error: there is no command 'biuld'\nhint: did you mean build?\nSee 'pybuild --help'."),
        (["xyz"], "hint: the commands are build, "),
        (["--nonsense"], "error: no such option '--nonsense'"),
        (["--root"], "error: option '--root' requires an argument"),
    ],
)
def test_wrong_commands(args: list[str], message: str) -> None:
    ran = run_cli(FakeBuilder(), *args)
    assert (ran.status, ran.stdout) == (2, "")
    assert message in ran.stderr


def test_a_failed_build_from_the_first_event_to_the_report() -> None:
    where = Location(
        filename="Dockerfile", ranges=(SourceRange(start_line=2, end_line=2),), text=b"FROM scratch\nRUN make\n"
    )
    error = ExecFailed("exit code: 2", exit_code=2, hint="look").located(where, vertex="v")
    builder = FakeBuilder(
        events=[
            VertexEvent(digest="v", name="[2/2] RUN make", started=1.0),
            LogEvent(vertex="v", stream=2, data=b"broken\n", timestamp=1.5),
            VertexEvent(
                digest="v",
                name="[2/2] RUN make",
                started=1.0,
                completed=2.0,
                outcome=Outcome.FAILED,
                error="exit code: 2",
            ),
        ],
        error=SolveError((error,)),
    )
    ran = run_cli(builder, "build", ".")
    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr == (
        "#1 [2/2] RUN make\n#1 0.500 broken\n#1 ERROR: exit code: 2\n"
        "error: exit code: 2\n"
        "Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> RUN make\n--------------------\n"
        "the last output of [2/2] RUN make:\n    broken\n"
        "hint: look\n"
    )
    assert not builder.is_open


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (HostError("no overlay", hint="modprobe overlay"), 3, "error: no overlay\nhint: modprobe overlay\n"),
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("x", [KeyboardInterrupt(), ValueError()]), 130, ""),
        (EOFError(), 70, "error: internal error: EOFError"),
        (ZeroDivisionError("x"), 70, "error: internal error: ZeroDivisionError: x\nThis is a bug in pybuild."),
        (PermissionError(13, "denied"), 70, "error: internal error: PermissionError"),
        (ExceptionGroup("x", [ValueError("y")]), 70, "error: internal error: ExceptionGroup"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_how_a_build_ends(error: BaseException, status: int, said: str) -> None:
    ran = run_cli(FakeBuilder(error=error), "build", ".")
    assert (ran.status, ran.stdout) == (status, "")
    assert said in ran.stderr
    assert bool(said) == bool(ran.stderr)
    assert ("Traceback" in ran.stderr) == (status == 70)


def test_a_builder_that_cannot_be_opened() -> None:
    def refuse(config: object) -> FakeBuilder:
        raise HostError("pybuild needs root", hint="sudo")

    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        assert main(["build", "."], App(refuse)) == 3
        assert sys.stderr.getvalue() == "error: pybuild needs root\nhint: sudo\n"
    finally:
        sys.stderr = stderr


def test_a_wrong_configuration_is_told_before_the_build_and_not_for_the_help(context: Path) -> None:
    (context / "my.toml").write_text("[worker]\nstep-pids = 'x'\n")
    ran = run_cli(FakeBuilder(), "--config", "my.toml", "build", ".")
    assert ran.status == 1
    assert ran.stderr == (
        "error: my.toml: worker.step-pids must be a whole number, 0 or more, not 'x'\n"
        "my.toml:2\n--------------------\n   1 |     [worker]\n   2 | >>> step-pids = 'x'\n--------------------\n"
    )
    assert run_cli(FakeBuilder(), "--config", "my.toml", "version").status == 0


def test_debug_from_the_configuration_shows_tracebacks(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYBUILD_DEBUG", "1")
    ran = run_cli(FakeBuilder(error=BuildError("x")), "build", ".")
    assert ran.stderr.startswith("error: x\nTraceback (most recent call last):\n")


def run_program(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "buildengine.cli.main", *args], capture_output=True, text=True, check=False, **more
    )


REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        (["--help"], ["buildengine.config", "buildengine.builder", "rich", "trio", "google", "networkx", "tomllib"]),
        (["build", "absent"], ["buildengine.config", "rich", "trio", "google", "networkx", "json", "csv", "difflib"]),
        (["version"], ["buildengine.builder", "rich", "trio", "google"]),
    ],
)
def test_start_up_imports_only_what_is_used(args: list[str], absent: list[str]) -> None:
    program = f"""
import sys
from buildengine.cli.main import main
main({args!r})
print(*(name for name in {absent!r} if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ran.stdout.splitlines()[-1] == ""


def test_streams_that_are_closed_or_know_few_letters() -> None:
    program = """
import sys
from buildengine.cli.main import main
from buildengine.cli.app import App
from tests.fakes.builder import FakeBuilder, FakeImages
images = FakeImages(histories={"app": [{"Id": "sha256:12", "CreatedBy": "\u2713" * 99}]})
sys.exit(main(["image", "history", "app"], App(FakeBuilder(images=images).open)))
"""

    def run(redirection: str) -> subprocess.CompletedProcess[bytes]:
        command = ["bash", "-c", f'"$@" {redirection}', "-", sys.executable, "-c", program]
        environ = {"PATH": "/bin", "PYTHONIOENCODING": "latin-1"}
        return subprocess.run(command, capture_output=True, check=False, cwd=REPOSITORY, env=environ)

    latin = run("")
    assert (latin.returncode, latin.stderr) == (0, b"")
    assert b"\\u2713\\u2713" in latin.stdout
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        assert (run(closed).returncode, run(closed).stderr) == (0, b"")


def test_a_reader_that_left_is_no_error() -> None:
    program = f"{sys.executable} -m buildengine.cli.main build --help | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ran.stdout.strip() in ("0", "1")
    assert ran.stderr == ""


def test_a_disk_that_is_full_is_no_bug() -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "buildengine.cli.main", "build", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=REPOSITORY,
        )
    assert (ran.returncode, ran.stderr) == (1, "error: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize(("protocol", "fake"), [(Builder, FakeBuilder), (Images, FakeImages)])
def test_the_fake_is_called_as_the_real_one(protocol: type, fake: type) -> None:
    for name, member in vars(protocol).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            assert inspect.signature(getattr(fake, name)) == inspect.signature(member), name
