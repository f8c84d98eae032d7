"""`pybuild lint`: what it prints, how it ends, and what --fix writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.builds import write
from tests.fakes.builder import FakeBuilder, Ran, run_cli

ODD = "FROM scratch AS Base\nENV a b\nMAINTAINER me\n"
TIDY = "FROM scratch AS base\nENV a=b\nMAINTAINER me\n"


def lint(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    return run_cli(FakeBuilder(), "lint", *map(str, arguments), stdin=stdin)


def test_nothing_found_is_status_0(tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM scratch\nCOPY a /\n"})
    assert lint(tmp_path) == Ran(status=0, stdout="", stderr="")


def test_findings_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": ODD})
    ran = lint(tmp_path)
    assert ran.status == 1
    heads = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("WARNING: ")]
    assert heads == ["StageNameCasing", "LegacyKeyValueFormat", "MaintainerDeprecated"]
    assert ran.stdout.endswith("\n--fix may mend 2 of 3\n")
    assert (tmp_path / "Dockerfile").read_text() == ODD


def test_fix_shows_a_difference_and_writes_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, {"app.Dockerfile": ODD}) / "app.Dockerfile"
    file.chmod(0o640)
    ran = lint("--fix", "--file", file, tmp_path)
    assert ran.status == 1  # MAINTAINER is left
    assert ran.stdout.startswith(f"--- {file}\n+++ {file}\n@@ -1,4 +1,4 @@\n-FROM scratch AS Base\n-ENV a b\n+FROM")
    assert "WARNING: MaintainerDeprecated" in ran.stdout
    assert file.read_text() == TIDY
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["app.Dockerfile"]


def test_fix_leaves_a_tidy_file_alone(tmp_path: Path) -> None:
    file = write(tmp_path, {"Dockerfile": "FROM scratch\nENV a=b\n"}) / "Dockerfile"
    before = file.stat()
    assert lint("--fix", tmp_path) == Ran(status=0, stdout="", stderr="")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_mistake_is_an_error_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM scratch\nCOPPY a /\n"})
    ran = lint(tmp_path)
    assert ran.status == 1
    assert "unknown instruction: COPPY (did you mean COPY?)" in ran.stderr
    assert "   2 | >>> COPPY a /" in ran.stderr


def test_standard_input(tmp_path: Path) -> None:
    assert "WARNING: StageNameCasing" in lint("--file", "-", tmp_path, stdin=ODD.encode()).stdout
    ran = lint("--fix", "--file", "-", tmp_path, stdin=ODD.encode())
    assert (ran.status, "--fix has no file to write to" in ran.stderr) == (2, True)


def test_the_ignore_file_and_arguments_count(tmp_path: Path) -> None:
    text = "# check=experimental=CopyIgnoredFile\nARG IMAGE\nFROM ${IMAGE} AS x\nCOPY a.md /\n"
    write(tmp_path, {"Dockerfile": text, ".dockerignore": "*.md\n"})
    assert "base name (${IMAGE}) should not be blank" in lint(tmp_path).stderr
    assert "WARNING: CopyIgnoredFile" in lint("--build-arg", "IMAGE=scratch", tmp_path).stdout


@pytest.mark.parametrize(
    ("name", "text", "reader"),
    [
        ("Dockerfile", "# syntax=example.org/hop:1\nFROM scratch AS Base\n", "example.org/hop:1"),
        ("Dockerfile", "# syntax=python://hop\nFROM scratch AS Base\n", "python://hop"),
        ("build.py", "import llb\n", "python.v0"),
    ],
)
def test_a_file_of_another_frontend_is_not_read_as_a_dockerfile(
    name: str, text: str, reader: str, tmp_path: Path
) -> None:
    file = write(tmp_path, {name: text}) / name
    ran = lint("--fix", "--file", file, tmp_path)
    assert (ran.status, ran.stdout) == (1, "")
    assert f"error: this is read by the frontend {reader}, and only Dockerfiles can be linted\n" in ran.stderr
    assert ("   1 | >>> # syntax=" in ran.stderr) == text.startswith("#")
    assert file.read_text() == text


def test_the_language_itself_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": f"# syntax=docker/dockerfile:1\n{TIDY}"})
    assert "WARNING: MaintainerDeprecated" in lint(tmp_path).stdout
