"""Caches in images between BuildKit and us: each reads what the other writes, and finds none of its own keys in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, write
from tests.conformance import peer
from tests.fakes.daemon import daemon
from tests.integration.test_push import Side, inspect, serving

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM scratch AS one
COPY a /a
FROM scratch
COPY b /b
COPY --from=one /a /a
"""


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with serving("docker", tmp_path / "registry") as running:
        yield running


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a": "1", "b": "2"})


def ctl(argv: list[str], context: Path, name: str, *words: str) -> str:
    """A build that is pushed; what it printed."""
    argv = [*argv, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", f"context={context}"]
    argv += ["--local", f"dockerfile={context}", "--output", f"type=image,name={name},push=true", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def test_our_daemon_before_buildctl(side: Side, empty_store: Store, context: Path, tmp_path: Path) -> None:
    """Another daemon finds all steps, and pushes the same image."""
    name = f"{side.host}/app:1"
    inline, cached = ("--export-cache", "type=inline"), ("--import-cache", f"type=registry,ref={name}")
    buildctl = str(peer.directory() / "buildctl")
    told = []
    for number, words in enumerate((inline, (*inline, *cached))):
        with daemon(tmp_path / f"root{number}", tmp_path) as running:
            address = running.address.replace("unix:", "unix://")
            told.append((ctl([buildctl, "--addr", address], context, name, *words), inspect(name)))
    assert told[0][0].count("CACHED") == 0
    assert told[1][0].count("CACHED") == 3
    assert f"importing cache manifest from {name}" in told[1][0]
    assert told[1][1] == told[0][1]


def test_what_buildkit_has_written(side: Side, empty_store: Store, context: Path, tmp_path: Path) -> None:
    inside, beside = f"{side.host}/bk:1", f"{side.host}/bk:cache"
    exports = ("--export-cache", "type=inline", "--export-cache", f"type=registry,ref={beside},mode=max")
    with peer.daemon(tmp_path) as running:
        ctl(running.ctl(), context, inside, *exports)
        built = empty_store.command("build", context, "--cache-from", inside, "--cache-from", beside)
        for name in (inside, beside):
            assert built.step(f"importing cache manifest from {name}").outcome == "done"
        assert len(built.ran) == 3


def test_what_buildkit_reads(side: Side, empty_store: Store, context: Path, tmp_path: Path) -> None:
    name = f"{side.host}/app:1"
    empty_store.command("build", context, "-t", name, "--push", "--cache-to", "type=inline")
    with peer.daemon(tmp_path) as running:
        told = ctl(running.ctl(), context, f"{side.host}/bk:1", "--import-cache", f"type=registry,ref={name}")
    (number,) = {line.split()[0] for line in told.splitlines() if "importing cache manifest" in line}
    assert f"{number} DONE" in told
