"""Whole Dockerfiles and all that comes of them: every operation with its digest, name and lines, config, warnings.

The expectations are tests/golden/dockerfile_*.json. After an intended change, write them anew and read the diff:
`python -m tests.unit.test_dockerfile_golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from frontends.testing import ARM64
from llb import inspect
from llb.definition import Definition
from tests.fakes.gateway import build, findings, image_config

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in GOLDEN.glob("dockerfile_*.Dockerfile"))
OPTIONS = {
    "build-arg:VERSION": "9",
    "build-arg:https_proxy": "http://proxy:1",
    "label:made.by": "test",
    "add-hosts": "db=10.0.0.2",
    "ulimit": "nofile=1024:2048",
}
IMAGES = {
    "docker.io/library/golang:1.22": image_config(Env=["PATH=/go/bin:/usr/bin", "GOPATH=/go"], WorkingDir="/go"),
    "docker.io/library/node:20": image_config(
        Env=["PATH=/usr/bin", "NODE_VERSION=20"], Entrypoint=["entry"], Cmd=["node"]
    ),
    "docker.io/library/debian:stable": image_config(Cmd=["bash"]),
    "docker.io/library/debian:stable linux/arm64": image_config(platform=ARM64, Cmd=["bash"]),
    "docker.io/library/onbuild:latest": image_config(OnBuild=["COPY . /app", "RUN make -C /app"]),
}


def _operations(definition: Definition | None) -> list[dict[str, Any]]:
    if definition is None:
        return []
    places = definition.source.places
    found = []
    for document in inspect.documents(definition):
        ranges = [r.start_line for place in places.get(document["Digest"], ()) for r in place.ranges]
        found.append({**document, "Lines": sorted(set(ranges))})
    return found


async def made(name: str) -> str:
    text = (GOLDEN / f"{name}.Dockerfile").read_bytes()
    platforms = [ARM64] if "arm64" in name else []
    built = await build(text, OPTIONS, *platforms, files={".dockerignore": b"*.log\n!keep.log\n"}, images=IMAGES)
    document = {
        "operations": _operations(built.image.result.definition),
        "config": built.image.document,
        "warnings": findings(built),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", NAMES)
async def test_golden(name: str) -> None:
    assert await made(name) == (GOLDEN / f"{name}.json").read_text()


def test_there_are_some() -> None:
    assert len(NAMES) >= 4


if __name__ == "__main__":
    for each in NAMES:
        (GOLDEN / f"{each}.json").write_text(trio.run(made, each))
