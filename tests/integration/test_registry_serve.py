"""The registry of our own, whole: the program on a port, skopeo on the other side."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.own_registry import OwnRegistry, own_registry
from tests.integration.test_registry_docker import Built


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[OwnRegistry]:
    with own_registry(tmp_path / "root") as running:
        yield running


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def blobs(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


def test_skopeo_pushes_and_pulls_the_same_bytes(registry: OwnRegistry, tmp_path: Path) -> None:
    image = Built().write(tmp_path / "in", "docker.io/library/app:1")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{image}:1", f"docker://{registry.address}/a/b:1")
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.address}/a/b:1", f"oci:{tmp_path / 'out'}:1")
    assert blobs(tmp_path / "out") == blobs(image)
    assert {r.status for r in registry.log()} <= {200, 201, 202, 404}
    assert registry.complaints == ""
