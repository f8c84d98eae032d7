"""`pybuild pull` on a builder that pulls nothing: what is asked of it, and what is printed."""

from __future__ import annotations

import pytest

from buildengine.builder import PulledImage, PullRequest
from buildengine.digest import Digest
from buildengine.errors import SourceError
from buildengine.platform import parse
from tests.fakes.builder import FakeBuilder, run_cli

DIGEST = Digest.sha256(b"app")
LAYER = Digest.sha256(b"layer")


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (["app"], PullRequest(reference="app")),
        (["--platform", "arm64", "app"], PullRequest(reference="app", platform=parse("linux/arm64"))),
        (["--all-platforms", "-q", "app"], PullRequest(reference="app", all_platforms=True)),
    ],
)
def test_what_is_asked_for(arguments: list[str], request_: PullRequest) -> None:
    builder = FakeBuilder()
    assert run_cli(builder, "pull", *arguments).status == 0
    assert builder.pulls == [request_]


@pytest.mark.parametrize(
    ("name", "head", "status"),
    [
        ("app", ["Using default tag: latest", "latest: Pulling from library/app"], "app:latest"),
        ("app:1", ["1: Pulling from library/app"], "app:1"),
        ("me/app", ["Using default tag: latest", "latest: Pulling from me/app"], "me/app:latest"),
        ("x.org/me/app:1", ["1: Pulling from me/app"], "x.org/me/app:1"),
        (f"app:1@{DIGEST}", [f"{DIGEST}: Pulling from library/app"], f"app@{DIGEST}"),
    ],
)
@pytest.mark.parametrize("is_new", [True, False])
def test_dockers_words(name: str, head: list[str], status: str, is_new: bool) -> None:
    pulled = PulledImage(name="the/whole:name", digest=DIGEST, is_new=is_new)
    builder = FakeBuilder(pulled=pulled, layers=[(LAYER, True), (DIGEST, False)])
    state = "Downloaded newer image" if is_new else "Image is up to date"
    assert run_cli(builder, "pull", name).stdout.splitlines() == [
        *head,
        f"{LAYER.hex[:12]}: Pull complete",
        f"{DIGEST.hex[:12]}: Already exists",
        f"Digest: {DIGEST}",
        f"Status: {state} for {status}",
        "the/whole:name",
    ]
    assert run_cli(builder, "pull", "--quiet", name).stdout == "the/whole:name\n"


def test_a_failure_and_names_that_are_none() -> None:
    failed = run_cli(FakeBuilder(error=SourceError("not there", hint="look elsewhere")), "pull", "app")
    assert failed.status == 1
    assert "error: not there\nhint: look elsewhere" in failed.stderr
    builder = FakeBuilder()
    assert run_cli(builder, "pull", "UPPER").status == 1
    assert run_cli(builder, "pull").status == 2
    assert builder.pulls == []
