"""`pybuild build --call`: what the builder is asked, and how its answer is printed."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from buildengine.builder import BuildOutcome
from tests.fakes.builder import FakeBuilder, Ran, run_cli

FILE = b"from base\nCMD a b\n"
LOCATION = {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}
WARNING = {"ruleName": "NewRule", "detail": "this is new", "url": "https://docs.example/", "location": LOCATION}
WARNED = """
WARNING: NewRule - https://docs.example/
this is new
Dockerfile:2
--------------------
   1 |     from base
   2 | >>> CMD a b
{blank}
--------------------
""".format(blank="   3 |     ")
FOUND = {"warnings": [WARNING], "sources": [{"filename": "Dockerfile", "data": base64.b64encode(FILE).decode()}]}
BROKEN = {**FOUND, "buildError": {"message": "it is broken", "location": LOCATION}}


@pytest.fixture(autouse=True)
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Dockerfile").write_bytes(FILE)
    monkeypatch.chdir(tmp_path)


def ask(*flags: str, document: Any = None, **answer: str) -> tuple[Ran, FakeBuilder]:
    """Run the command before a frontend that answers `document` and `answer`."""
    told = {f"result.{name}".replace("result.version", "version"): text for name, text in answer.items()}
    if document is not None:
        told["result.json"] = json.dumps(document)
    outcome = BuildOutcome(ref="", answer={name: text.encode() for name, text in told.items()})
    builder = FakeBuilder(outcome=outcome)
    return run_cli(builder, "build", "--progress=none", *flags, "."), builder


@pytest.mark.parametrize(
    ("flags", "request_id"),
    [
        (["--check"], "frontend.lint"),
        (["--call=check"], "frontend.lint"),
        (["--call=lint"], "frontend.lint"),
        (["--call=outline,format=json"], "frontend.outline"),
        (["--call=format=json,targets,ignorestatus=1"], "frontend.targets"),
        (["--print=subrequests.describe"], "frontend.subrequests.describe"),
        (["--call=what.a.frontend.knows"], "frontend.what.a.frontend.knows"),
    ],
)
def test_a_question_is_a_build_that_exports_nothing(flags: list[str], request_id: str) -> None:
    _, builder = ask(*flags, "-t", "app", "-o", "out", "--build-arg", "BUILDKIT_INLINE_CACHE=1", txt="")
    (request,) = builder.requests
    assert request.options["requestid"] == request_id
    assert request.options["frontend.caps"] == "moby.buildkit.frontend.subrequests+forward"
    assert (request.exports, request.cache_exports) == ((), ())
    assert not os.path.exists("out")


@pytest.mark.parametrize("flags", [["--call=build"], ["--call="], ["--check=false"], ["--call=format=json"]])
def test_a_build_is_no_question(flags: list[str]) -> None:
    ran, builder = ask(*flags)
    assert (ran.status, ran.stdout) == (0, "")
    assert "requestid" not in builder.requests[0].options


@pytest.mark.parametrize(
    "flags",
    [
        ["--call=check,outline"], ["--call=check,form=json"], ["--call=check,format=yaml"],
        ["--call=check,ignorestatus=perhaps"], ["--check", "--call=outline"],
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(flags: list[str]) -> None:
    ran, builder = ask(*flags)
    assert ran.status == 2
    assert not builder.requests


@pytest.mark.parametrize(
    ("flag", "answer", "status", "printed"),
    [
        ("outline", {"json": "{}", "txt": "text\n", "version": "1.0.0"}, 0, "text\n"),
        ("outline,format=json", {"json": "{}", "txt": "text\n"}, 0, "{}\n"),
        ("outline,format=json", {"txt": "text\n"}, 0, "text\n"),
        ("convertllb", {"json": "{}"}, 0, "{}\n"),
        ("targets", {"txt": "text", "statuscode": "7"}, 7, "text"),
        ("targets,ignorestatus=true", {"txt": "text", "statuscode": "7"}, 0, "text"),
        ("check", {"json": '{"warnings": null}', "statuscode": "0"}, 0, "Check complete, no warnings found.\n"),
        ("check", {"document": FOUND, "statuscode": "1"}, 1, "Check complete, 1 warning has been found!\n" + WARNED),
        ("check,ignorestatus=true", {"document": FOUND, "statuscode": "1", "version": "1.0.0"}, 0,
         "Check complete, 1 warning has been found!\n" + WARNED),
        ("check,format=json", {"document": FOUND, "statuscode": "1"}, 1, json.dumps(FOUND) + "\n"),
        ("check", {"document": {**FOUND, "warnings": [WARNING, WARNING]}, "txt": "of a newer form\n",
                   "version": "1.1.0"}, 0, "Check complete, 2 warnings have been found!\nof a newer form\n"),
        ("check,ignorestatus=true", {"document": BROKEN, "statuscode": "1"}, 1,
         "Check complete, 1 warning has been found!\n" + WARNED + "\n"),
        ("check", {"document": {**BROKEN, "warnings": None}}, 1, ""),
        ("check", {"json": "[]"}, 1, ""),
        ("check", {"document": {"warnings": [WARNING]}}, 1, ""),
        ("check", {}, 1, ""),
    ],
)  # fmt: skip
def test_answers(flag: str, answer: dict[str, Any], status: int, printed: str) -> None:
    ran, _ = ask(f"--call={flag}", **answer)
    assert (ran.status, ran.stdout) == (status, printed)
    assert "Traceback" not in ran.stderr


def test_what_ended_the_check_is_an_error_with_its_place() -> None:
    ran, _ = ask("--check", document=BROKEN)
    assert ran.stderr.startswith("error: it is broken\nDockerfile:2\n")
