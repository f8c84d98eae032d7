"""Build files of another language are handed to the frontend image that they name; our own language needs none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from buildengine.errors import BuildError, Unsupported
from frontends.dockerfile.build import DockerfileFrontend
from frontends.gateway import FrontendRequest, FrontendResult, Gateway
from frontends.testing import ARM64, FakeGateway
from llb.sources import local as directory
from tests.fakes.gateway import gateway, request

DOCKERFILE = "FROM scratch\nCOPY a /\n"
INPUT = directory("x").marshal()
DIGEST = "sha256:" + "5" * 64


class Other:
    """A frontend that remembers what it was asked."""

    def __init__(self, error: BuildError | None = None) -> None:
        self.asked: list[FrontendRequest] = []
        self.error = error

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return FrontendResult(results=(), metadata={"other": b"1"})

    def on(self, dockerfile: str) -> FakeGateway:
        found = gateway(dockerfile, files={"a": b""})
        found.frontends = {"gateway.v0": self}
        return found


async def forwarded(dockerfile: str, options: Mapping[str, str] | None = None) -> Mapping[str, str] | None:
    """The options that the other frontend got; None where the file was built by ours."""
    other = Other()
    result = await DockerfileFrontend().build(other.on(dockerfile), request(options))
    assert bool(other.asked) == ("other" in result.metadata)
    return other.asked[0].options if other.asked else None


@pytest.mark.parametrize(
    "syntax",
    ["docker/dockerfile:1", "docker.io/docker/dockerfile:1.20-labs", "docker/dockerfile-upstream", "docker/dockerfile"],
)
async def test_our_own_language_needs_no_image(syntax: str) -> None:
    assert await forwarded(f"# syntax={syntax}\n{DOCKERFILE}") is None
    assert await forwarded(DOCKERFILE, {"build-arg:BUILDKIT_SYNTAX": syntax}) is None


@pytest.mark.parametrize("syntax", ["me/mine", f"docker/dockerfile:1@{DIGEST}", "r.example/docker/dockerfile:1"])
async def test_any_other_image_gets_all_options_and_what_was_written(syntax: str) -> None:
    given = {"build-arg:A": "1", "target": "x", "platform": "linux/arm64"}
    assert await forwarded(f"# syntax = {syntax} --fast\nNONSENSE\n", given) == {
        **given,
        "source": syntax,
        "cmdline": f"{syntax} --fast",
    }


async def test_the_same_image_by_a_named_context_is_meant_as_it_is() -> None:
    given = {"context:docker/dockerfile:1": "docker-image://mirror.example/dockerfile"}
    got = await forwarded(f"# syntax=docker/dockerfile:1\n{DOCKERFILE}", given)
    assert got is not None
    assert got["source"] == "docker/dockerfile:1"


async def test_a_build_argument_counts_more_than_the_file() -> None:
    got = await forwarded(f"# syntax=me/mine\n{DOCKERFILE}", {"build-arg:BUILDKIT_SYNTAX": " you/yours -v "})
    assert got is not None
    assert (got["source"], got["cmdline"]) == ("you/yours", " you/yours -v ")
    assert (
        await forwarded(f"# syntax=me/mine\n{DOCKERFILE}", {"build-arg:BUILDKIT_SYNTAX": "docker/dockerfile"}) is None
    )


async def test_what_was_forwarded_once_is_not_again() -> None:
    given = {"cmdline": "me/mine", "build-arg:BUILDKIT_SYNTAX": "me/mine"}
    assert await forwarded(f"# syntax=me/mine\n{DOCKERFILE}", given) is None


async def test_platforms_and_inputs_go_along() -> None:
    other = Other()
    asked = FrontendRequest(
        options={"platform": "linux/arm64"},
        platforms=(ARM64,),
        build_platform=ARM64,
        inputs={"x": INPUT},
    )
    await DockerfileFrontend().build(other.on(f"# syntax=me/mine\n{DOCKERFILE}"), asked)
    (got,) = other.asked
    assert (got.platforms, got.inputs) == ((ARM64,), {"x": INPUT})


async def test_a_failure_is_shown_at_the_directive() -> None:
    other = Other(BuildError("it broke"))
    with pytest.raises(BuildError, match="it broke") as caught:
        await DockerfileFrontend().build(other.on(f"#!/bin/sh\n# syntax=me/mine\n{DOCKERFILE}"), request())
    ((place,),) = [location.ranges for location in caught.value.locations]
    assert place.start_line == 2


async def test_a_capability_that_only_the_image_can_have() -> None:
    wanted = "moby.buildkit.frontend.dreams"
    syntax = f"# syntax=me/mine\n{DOCKERFILE}"
    assert await forwarded(syntax, {"frontend.caps": f"{wanted}+forward"}) is not None
    for dockerfile, caps in ((DOCKERFILE, f"{wanted}+forward"), (syntax, wanted)):
        with pytest.raises(Unsupported) as caught:
            await forwarded(dockerfile, {"frontend.caps": caps})
        assert caught.value.capability == wanted
