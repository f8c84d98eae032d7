"""`buildctl` drives builds of pybuildd: it is the frontend itself, and asks for ours through the gateway."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb.state import mkfile, scratch
from tests.builds import FIXTURES, Store, write
from tests.conformance import peer
from tests.fakes.daemon import Daemon, daemon

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base
COPY a /srv/
RUN cp /srv/a /srv/b
"""


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("daemon")
    with daemon(store_with_base.copy(place / "root").root, place) as started:
        yield started


def buildctl(running: Daemon, *arguments: object, given: bytes = b"", status: int = 0) -> str:
    """What it says. `arguments` follow `build`."""
    argv = [peer.directory() / "buildctl", "--addr", running.address.replace("unix:", "unix://"), "build"]
    words = [str(word) for word in (*argv, "--progress", "plain", *arguments)]
    done = subprocess.run(words, input=given, capture_output=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr.decode()
    return done.stderr.decode()


def dockerfile(running: Daemon, context: Path, *arguments: object, status: int = 0) -> str:
    directories = ("--local", f"context={context}", "--local", f"dockerfile={context}")
    return buildctl(running, "--frontend", "dockerfile.v0", *directories, *arguments, status=status)


def test_a_dockerfile_becomes_an_archive(running: Daemon, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a": "hello"})
    dockerfile(running, context, "--output", f"type=oci,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        manifest = json.load(archive.extractfile(f"blobs/sha256/{digest}") or pytest.fail("no manifest"))
    assert len(manifest["layers"]) == 3


def test_two_platforms_become_two_directories(running: Daemon, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "hello"})
    platforms = "platform=linux/amd64,linux/arm64"
    dockerfile(running, context, "--opt", platforms, "--output", f"type=local,dest={tmp_path / 'out'}")
    assert [(tmp_path / "out" / f"linux_{name}" / "a").read_text() for name in ("amd64", "arm64")] == ["hello"] * 2


def test_an_error_shows_the_lines_of_the_file(running: Daemon, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN exit 3\n"})
    said = dockerfile(running, context, status=1)
    assert "   2 | >>> RUN exit 3" in said
    assert "did not complete successfully: exit code: 3" in said
    context = write(tmp_path / "other", {"Dockerfile": "FROM base\nRUNN exit 3\n"})
    said = dockerfile(running, context, status=1)
    assert "   2 | >>> RUNN exit 3" in said
    assert "failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN" in said


def test_a_definition_on_standard_input(running: Daemon, tmp_path: Path) -> None:
    tree = scratch().file(mkfile("/a", b"a").mkfile("/b", b"b")).marshal()
    buildctl(running, "--output", f"type=local,dest={tmp_path / 'out'}", given=tree.to_bytes())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]
