"""`build` tried out: run on a fake gateway, and what it made.

built = run(build, files={"public/index.html": "hello"}, images={"nginx": image_config(Cmd=["nginx"])})
assert built.step("copy").copies[0].dest == "/usr/share/nginx/html"
assert built.config["Cmd"] == ["nginx"]
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import trio

from buildengine import platform as platforms
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from frontends.gateway import FrontendRequest, FrontendResult, PlatformResult
from frontends.python import building
from frontends.python.context import SECRETS
from frontends.python.result import Build
from frontends.testing import trees
from frontends.testing.gateway import AMD64, FakeGateway
from frontends.testing.recorder import Recorder
from frontends.testing.steps import Step, steps
from frontends.testing.trees import Given
from llb.state import State

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class BuiltImage:
    """One platform's image."""

    result: PlatformResult
    gateway: FakeGateway

    @property
    def platform(self) -> Platform:
        return self.result.platform

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What makes it, inputs before users."""
        return steps(self.result.definition)

    def step(self, part: str) -> Step:
        """The one step with `part` in its name, or in the command that it runs."""
        found = self.find(part)
        shown = "\n  ".join(map(str, self.steps))
        assert len(found) == 1, f"{len(found)} steps have {part!r} in their names; all are:\n  {shown}"
        return found[0]

    def find(self, part: str) -> list[Step]:
        return [step for step in self.steps if part in step.name]

    @property
    def names(self) -> list[str]:
        return [step.name for step in self.steps]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole image config."""
        return dict(json.loads(self.result.config))

    @property
    def config(self) -> dict[str, Any]:
        """What its containers start with: `Cmd`, `Env`, `User`, ..., as in an image config."""
        return dict(self.document["config"])

    @property
    def env(self) -> dict[str, str]:
        pairs = (variable.partition("=") for variable in self.config.get("Env", ()))
        return {name: value for name, _, value in pairs}

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The regular files that are in it, by path: of images and commands only what was given."""
        definition = self.result.definition
        made = {} if definition is None else trees.evaluate(definition, self.gateway.tree, self.gateway.left)
        return {path: entry.data for path, entry in sorted(made.items()) if stat.S_ISREG(entry.mode)}


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build made. Of several platforms `on(platform)` is one image; the rest is for the only one."""

    result: FrontendResult
    gateway: FakeGateway
    asked: tuple[str, ...] = ()  # of the gateway, see recorder

    @cached_property
    def images(self) -> tuple[BuiltImage, ...]:
        return tuple(BuiltImage(result=made, gateway=self.gateway) for made in self.result.results)

    @property
    def multi_platform(self) -> bool:
        return self.result.multi_platform

    @property
    def warnings(self) -> Sequence[WarningEvent]:
        return self.gateway.warnings

    def on(self, platform: str) -> BuiltImage:
        found = [image for image in self.images if str(image.platform) == platform]
        assert found, f"there is nothing for {platform}, only for {', '.join(str(one.platform) for one in self.images)}"
        return found[0]

    @property
    def image(self) -> BuiltImage:
        assert len(self.images) == 1, f"there are {len(self.images)} images: take one with on(platform)"
        return self.images[0]

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.image.steps

    def step(self, part: str) -> Step:
        return self.image.step(part)

    @property
    def names(self) -> list[str]:
        return self.image.names

    @property
    def config(self) -> dict[str, Any]:
        return self.image.config

    @property
    def env(self) -> dict[str, str]:
        return self.image.env

    @property
    def files(self) -> dict[str, bytes]:
        return self.image.files


def run(
    build: Build,
    *,
    files: Given | None = None,
    beside: Given | None = None,
    images: Mapping[str, bytes] | None = None,
    sources: Mapping[str, Given] | None = None,
    leaves: Mapping[str, Given] | None = None,
    args: Mapping[str, str] = _NONE,
    options: Mapping[str, str] = _NONE,
    secrets: Sequence[str] = (),
    inputs: Mapping[str, State] | None = None,
    platforms: Sequence[str] = ("linux/amd64",),
    build_platform: str = "linux/amd64",
) -> Built:
    """Run `build` to its end. Raises what it raises: UserError where it refuses something.

    `args` is what `--build-arg` would set, `options` any other, `target`, `no-cache`, ...; `secrets` are ids, `inputs`
    results of other builds. For the rest see FakeGateway.
    """
    named = {"filename": "build.py", **options, **{f"build-arg:{name}": value for name, value in args.items()}}
    if secrets:
        named[SECRETS] = ",".join(secrets)
    request = _request(named, platforms, build_platform, inputs or {})
    gateway = FakeGateway(
        files=files or {},
        beside=beside,
        images=images or {},
        sources=sources or {},
        leaves=leaves or {},
        request=request,
    )
    return trio.run(partial(run_on, build, gateway, request))


async def run_on(build: Build, gateway: FakeGateway, request: FrontendRequest | None = None) -> Built:
    """The same for tests that are asynchronous themselves."""
    gateway.request = request or gateway.request
    recorder = Recorder(gateway)
    result = await building.run(build, recorder, gateway.request)
    return Built(result=result, gateway=gateway, asked=tuple(recorder.asked))


def _request(
    options: Mapping[str, str],
    wanted: Sequence[str],
    build_platform: str,
    inputs: Mapping[str, State],
) -> FrontendRequest:
    return FrontendRequest(
        options=options,
        inputs={name: state.marshal(platforms.parse(build_platform)) for name, state in inputs.items()},
        platforms=tuple(platforms.parse(each) for each in wanted) or (AMD64,),
        build_platform=platforms.parse(build_platform),
    )
