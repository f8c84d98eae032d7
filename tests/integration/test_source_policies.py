"""--source-policy-file: in the command's own engine, and before a daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builds import FIXTURES, Built, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.remote_command import remote

pytest_plugins = [FIXTURES]
Build = Callable[..., Built]
BASE, OTHER = "docker-image://docker.io/library/base:latest", "docker-image://docker.io/library/other:latest"


@pytest.fixture(scope="module", params=["here", "there"])
def build(
    request: pytest.FixtureRequest, store_with_base: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Build]:
    place = tmp_path_factory.mktemp("policies")
    store = store_with_base.copy(place / "store")
    if request.param == "here":
        yield store.command
        return
    with daemon(store.root, place / "d") as running:
        yield remote(running, store).run


def rules(place: Path, *found: dict[str, Any]) -> Path:
    return write(place, {"policy.json": json.dumps({"rules": found})}) / "policy.json"


def test_an_image_that_is_denied(build: Build, tmp_path: Path) -> None:
    context = write(
        tmp_path / "context", {"Dockerfile": "FROM scratch AS no\nCOPY Dockerfile /\nFROM base\nRUN true\n"}
    )
    policy = rules(tmp_path, {"action": "DENY", "selector": {"identifier": "docker-image://*"}})
    denied = build("build", context, "--source-policy-file", policy, status=1)
    assert f'could not resolve image due to policy: source "{BASE}" denied by policy' in denied.error
    assert "Dockerfile:3" in denied.error
    build("build", context, "--source-policy-file", policy, "--target", "no")
    by_variable = {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(policy)}
    assert "denied by policy" in build("build", context, status=1, environment=by_variable).error


def test_a_directory_that_is_denied(build: Build, tmp_path: Path) -> None:
    """It is read by the solver only: the frontend does not ask what it is."""
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": ""})
    policy = rules(tmp_path, {"action": "DENY", "selector": {"identifier": "local://context"}})
    denied = build("build", context, "--source-policy-file", policy, status=1)
    assert 'error evaluating the source policy: source "local://context" denied by policy' in denied.error


def test_what_is_read_in_the_place_of_an_image(build: Build, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM other\nRUN echo made > /made\nFROM scratch\nCOPY --from=0 /made /\n"}
    context = write(tmp_path / "context", files)
    convert = {"action": "CONVERT", "selector": {"identifier": OTHER}, "updates": {"identifier": BASE}}
    policy = rules(tmp_path, {"action": "DENY", "selector": {"identifier": OTHER}}, convert)
    built = build("build", context, "--source-policy-file", policy, "-o", tmp_path / "out")
    assert built.step("FROM docker.io/library/base:latest@sha256:")
    assert (tmp_path / "out/made").read_text() == "made\n"


def test_a_named_context_that_is_no_image_any_more(build: Build, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY --from=named f /\n"})
    write(tmp_path / "directory", {"f": "from the directory"})
    update = {"identifier": "local://dir"}
    policy = rules(tmp_path, {"action": "CONVERT", "selector": {"identifier": OTHER}, "updates": update})
    contexts = ("--build-context", "named=docker-image://other", "--build-context", f"dir={tmp_path}/directory")
    build("build", context, *contexts, "--source-policy-file", policy, "-o", tmp_path / "out")
    assert (tmp_path / "out/f").read_text() == "from the directory"
