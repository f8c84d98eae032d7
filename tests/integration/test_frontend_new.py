"""`pybuild frontend new`: the project that it writes, used as its README says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from buildengine.errors import UserError
from frontends.scaffold import project
from tests.builds import FIXTURES, PYBUILD, Store, write
from tests.fakes.image_tools import files_in, run

pytest_plugins = [FIXTURES]

# An image for two platforms; nothing runs on the other one, so what stands for it is empty.
INDEX = """
import llb
from frontends import Image

async def build(ctx):
    other = Image.of(llb.scratch().file(llb.mkfile("/other", b"")))
    return {each: await ctx.image("base", platform=each) if each == ctx.build_platform else other
            for each in ctx.platforms}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("new")
    told = run(PYBUILD, "frontend", "new", "my-words", cwd=place).decode()
    assert "my-words/my_words_frontend/__init__.py\n" in told
    assert "next: cd my-words && pip install -e '.[dev]' && pytest\n" in told
    return place / "my-words"


def test_its_tests_pass_as_written_and_again(written: Path) -> None:
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    for _ in range(2):  # the first writes the snapshot, the second compares
        told = run(*argv, cwd=written, environment={"PYTHONPATH": str(written)}).decode()
        assert re.search(r"^7 passed", told, re.MULTILINE)
    assert list(files_in(written / "tests/snapshots")) == ["test_an_image.txt"]


def test_its_tests_see_when_the_language_changes(written: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-a", written, changed], check=True)
    language = changed / "my_words_frontend/__init__.py"
    language.write_text(language.read_text().replace("parents=True", "parents=False"))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(changed)}
    done = subprocess.run(argv, cwd=changed, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "if that is meant, run pytest --update-snapshots" in done.stdout


def test_it_is_an_entry_point(written: Path) -> None:
    described = tomllib.loads((written / "pyproject.toml").read_text())["project"]
    module, _, attribute = described["entry-points"]["pybuild.frontends"]["my-words"].partition(":")
    tree = ast.parse((written / module / "__init__.py").read_text())
    assert attribute in [node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_a_clean_environment_it_builds_for_two_platforms(tmp_path: Path, store: Store) -> None:
    """As an author does it: pip, from PyPI, and then nothing but commands."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv/bin"
    environment = {**store.environment, "PATH": f"{programs}:{store.environment['PATH']}"}
    repository = Path(__file__).resolve().parents[2]
    run(programs / "pip", "install", "--quiet", repository, environment=environment)
    run(programs / "pybuild", "frontend", "new", "hop", cwd=tmp_path, environment=environment)
    project = tmp_path / "hop"
    run(programs / "pip", "install", "--quiet", "-e", ".[dev]", cwd=project, environment=environment)
    assert b"7 passed" in run(programs / "pytest", cwd=project, environment=environment)
    index = write(tmp_path / "index", {"build.py": INDEX})
    both = ("--platform", "linux/amd64,linux/arm64")
    run(
        programs / "pybuild",
        "build",
        "-f",
        index / "build.py",
        *both,
        "-t",
        "alpine:3.20",
        index,
        environment=environment,
    )
    written = project / "example/hop.build"
    written.write_text(written.read_text().replace("run cat /app/greeting > /greeting\n", ""))
    run(
        programs / "pybuild",
        "build",
        "-f",
        written,
        *both,
        "-o",
        "out",
        "example",
        cwd=project,
        environment=environment,
    )
    for platform in ("linux_amd64", "linux_arm64"):
        assert (project / "out" / platform / "app/greeting").read_text() == "hello\n"


def test_a_directory_that_holds_something_is_left_alone(written: Path) -> None:
    before = files_in(written)
    argv = [PYBUILD, "frontend", "new", "other", written]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, files_in(written)) == (1, before)
    assert "is not empty\nhint: another directory: pybuild frontend new other DIRECTORY" in done.stderr


@pytest.mark.parametrize("name", ["My", "1st", "a_b", "a--b", "-", "../x", "dockerfile", "python", ""])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be the name|there is"):
        project(name)
