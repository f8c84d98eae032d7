"""Dockerfiles tried out with the authors' testing kit: a few base images, and clients whose directory holds one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buildengine.platform import Platform
from frontends.dockerfile.build import DockerfileFrontend
from frontends.gateway import FrontendRequest
from frontends.testing import AMD64, Built, FakeGateway
from frontends.testing import image_config as any_config
from frontends.testing.trees import Given


def image_config(**fields: Any) -> bytes:
    """The same on every machine, with a PATH that nobody takes for the usual one."""
    return any_config(**{"platform": AMD64, "Env": ["PATH=/usr/bin"], **fields})


BASES = {
    "docker.io/library/busybox:latest": image_config(Cmd=["sh"]),
    "docker.io/library/alpine:latest": image_config(Cmd=["/bin/sh"]),
    "docker.io/library/golang:1": image_config(Env=["PATH=/usr/local/go/bin:/usr/bin", "GOPATH=/go"], WorkingDir="/go"),
}


def gateway(
    dockerfile: str | bytes, *, files: Given | None = None, images: Mapping[str, bytes] | None = None
) -> FakeGateway:
    """A gateway of a client whose directory holds this Dockerfile and `files`."""
    given = files or {}
    return FakeGateway(
        files=given, beside={"Dockerfile": dockerfile, **given}, images={**BASES, **(images or {})}, request=request()
    )


def request(options: Mapping[str, str] | None = None, *platforms: Platform) -> FrontendRequest:
    return FrontendRequest(options=options or {}, platforms=platforms or (AMD64,), build_platform=AMD64)


async def build(
    dockerfile: str | bytes,
    options: Mapping[str, str] | None = None,
    *platforms: Platform,
    files: Given | None = None,
    images: Mapping[str, bytes] | None = None,
) -> Built:
    fake = gateway(dockerfile, files=files, images=images)
    return Built(result=await DockerfileFrontend().build(fake, request(options, *platforms)), gateway=fake)


def findings(built: Built) -> list[str]:
    return [warning.message for warning in built.warnings]


def history(built: Built) -> list[str]:
    """What made each layer, as `docker history` shows it."""
    return [entry["created_by"] for entry in built.image.document.get("history", [])]
