"""Provenances as BuildKit writes them: the same build by both daemons, compared but for times, ids and gzip."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.engines import Daemon, buildkitd, pybuildd
from tests.builds import FIXTURES, write
from tests.conformance.peer import directory
from worker.runtime import isolate

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM scratch AS one
ARG FOO=1
COPY a /a
FROM scratch
COPY --from=one /a /b
COPY d /d/
LABEL x="<$FOO>"
"""
OPTIONS = {
    "build-arg:FOO": "a & b",
    "label:who": "me",
    "target": "",
    "vcs:source": "https://me:secret@example.com/app.git",
    "vcs:revision": "1234",
    "vcs:empty": "",
    "context:named": "https://me:secret@example.com/file",
    "filename": "Dockerfile",
    "cgroup-parent": "x",
}
_VARY = {"buildStartedOn", "buildFinishedOn", "buildInvocationID", "startedOn", "finishedOn", "invocationID"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    isolate.private_mounts()
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    with pybuildd(ours, directory()).running() as one, buildkitd(theirs, directory()).running() as other:
        yield one, other


def build(daemon: Daemon, context: Path, output: str, **options: str) -> None:
    argv = [*daemon.ctl(), "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--output", output]
    argv += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
    for name, value in {**OPTIONS, **options}.items():
        argv += ["--opt", f"{name}={value}"]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-4000:]


def alike(value: Any, key: str = "") -> Any:
    """What must be the same: no times and ids, and of blobs only how many there are."""
    if key in _VARY:
        return bool(value)
    if key == "digestMapping":
        return sorted(value.values())
    if isinstance(value, dict):
        found = {name: alike(each, name) for name, each in value.items()}
        return {**found, **({"digest": "", "size": 0} if "digest" in found else {})}
    return [alike(each) for each in value] if isinstance(value, list) else value


def attested(archive: Path) -> Any:
    """The index, the manifest beside the image, its config and its statements."""
    with tarfile.open(archive) as opened:

        def read(name: str) -> Any:
            return json.load(opened.extractfile(name) or pytest.fail(name))

        def blob(descriptor: Any) -> Any:
            return read(f"blobs/{descriptor['digest'].replace(':', '/')}")

        index = blob(read("index.json")["manifests"][0])
        manifest = blob(index["manifests"][-1])
        for each in index["manifests"]:
            each.get("annotations", {}).pop("vnd.docker.reference.digest", None)
        config = blob(manifest["config"])
        statements = [blob(layer) for layer in manifest["layers"]]
    diff_ids = config.get("rootfs", {}).pop("diff_ids", [])
    return [index, manifest, config, len(diff_ids), statements]


@pytest.mark.parametrize("asked", ["", "mode=min", "mode=max,version=v1,reproducible=true,builder-id=me"])
@pytest.mark.parametrize("platforms", ["linux/amd64", "linux/amd64,linux/arm64"])
def test_beside_images(both: tuple[Daemon, Daemon], asked: str, platforms: str, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a": "1", "d/x": "2"})
    found = []
    for daemon in both:
        output = f"type=oci,dest={tmp_path / daemon.name}.tar,name=example.com/app:1"
        build(daemon, context, output, **{"attest:provenance": asked, "platform": platforms})
        found.append(alike(attested(tmp_path / f"{daemon.name}.tar")))
    assert found[0] == found[1]


@pytest.mark.parametrize("split", ["true", "false"])
def test_beside_files(both: tuple[Daemon, Daemon], split: str, tmp_path: Path) -> None:
    context = write(
        tmp_path / "context", {"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH\n", "a": "1"}
    )
    found = []
    for daemon in both:
        out = tmp_path / daemon.name
        output = f"type=local,dest={out},platform-split={split},attestation-prefix=x."
        build(daemon, context, output, **{"attest:provenance": "mode=min", "platform": "linux/amd64,linux/arm64"})
        files = {str(path.relative_to(out)): path for path in out.rglob("*.json")}
        found.append(
            {name: (path.stat().st_mode, alike(json.loads(path.read_bytes()))) for name, path in files.items()}
        )
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_an_artifact(both: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a": "1", "d/x": "2"})
    found = []
    for daemon in both:
        output = f"type=oci,dest={tmp_path / daemon.name}.tar,oci-artifact=true"
        build(daemon, context, output, **{"attest:provenance": "mode=min"})
        found.append(alike(attested(tmp_path / f"{daemon.name}.tar")))
    assert found[0] == found[1]
