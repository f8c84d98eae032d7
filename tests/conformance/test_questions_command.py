"""`pybuild build --call`, without a daemon and before either, prints and ends as docker-buildx before buildkitd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.builds import PYBUILD
from tests.conformance.sides import Sides
from tests.conformance.test_questions import FILES, FLAGS, NAMES, ask, without_session

_CONFIGURATION = '[registry."docker.io"]\nmirrors = ["{host}"]\n\n[registry."{host}"]\nhttp = true\n'
_CALLS = ("check", "outline", "targets", "subrequests.describe", "lint,ignorestatus=true", "nonsense")


@pytest.fixture(scope="module")
def engines(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """How the command is begun: with a state directory of its own, and on either daemon."""
    work = tmp_path_factory.mktemp("command")
    configuration = work / "pybuild.toml"
    configuration.write_text(_CONFIGURATION.format(host=sides.ours.registry))
    alone = ["--root", str(work / "root"), "--config", str(configuration)]
    return [alone, *[["--addr", side.address.replace("unix:", "unix://")] for side in sides]]


@pytest.mark.parametrize("form", ["", ",format=json"], ids=["text", "json"])
@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_answers(name: str, call: str, form: str, sides: Sides, engines: list[list[str]]) -> None:
    theirs = ask(sides.theirs, name, call + form)
    flags = ("--progress=none", f"--call={call}{form}", "-f", FILES / f"{name}.Dockerfile", *FLAGS.get(name, ()))
    for engine in engines:
        ours = _ran(*engine, "build", *flags, FILES)
        assert (ours[0], _ordered(ours[1])) == (theirs[0], _ordered(theirs[1])), engine


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--check"], "Dockerfile"),
        (["--check=true", "-f", "Dockerfile"], "Dockerfile"),
        (["--call=build", "--call", "check"], "Dockerfile"),
        (["--print=lint"], "Dockerfile"),
        (["--check", "-f", "sub/mine"], "sub/mine"),
        (["--check", "-f", "./sub/../sub/mine"], "sub/mine"),
        (["--check", "-f", "-"], "-"),
    ],
)
def test_how_the_file_is_called(
    words: list[str], name: str, sides: Sides, engines: list[list[str]], tmp_path: Path
) -> None:
    """A warning names it as the user did."""
    (tmp_path / "sub").mkdir()
    stdin = b"from base\nCMD a b\n"
    if name != "-":
        (tmp_path / name).write_bytes(stdin)
    program = sides.theirs.buildx.argv("build", *words, ".")
    theirs = subprocess.run(
        program, input=stdin, cwd=tmp_path, env=sides.theirs.buildx.environment, capture_output=True, check=False
    )
    for engine in engines:
        assert _ran(*engine, "build", *words, ".", cwd=tmp_path, stdin=stdin) == (
            theirs.returncode,
            theirs.stdout.decode(),
        ), engine


def _ordered(said: str) -> object:
    """Go's sort of more than 12 warnings leaves those of one line in any order."""
    found = said.split("\nWARNING: ")
    return sorted(found) if len(found) > 13 else said


def _ran(*words: object, cwd: Path | None = None, stdin: bytes = b"") -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    argv = [PYBUILD, *map(str, words)]
    done = subprocess.run(argv, input=stdin, cwd=cwd, env=environment, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    return done.returncode, without_session(done.stdout.decode())
