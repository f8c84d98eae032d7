"""Frontends written in Python, in this process: what an author writes, and what the engine gets of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

import llb
from buildengine.errors import SourceError, UserError
from frontends import Context, Files, Image, Platform, Result, each_platform
from frontends.gateway import FrontendResult, PlatformResult
from frontends.python.building import run
from frontends.python.result import Build
from frontends.testing import AMD64, ARM64, FakeGateway, steps
from llb.ops import FileOp
from tests.fakes.gateway import gateway, image_config, request

FILES = {"app.yaml": b"name: app\nport: http\n", ".dockerignore": b"*.log\n", "src/main.py": b"print()\n"}


async def built(build: Build, *platforms: Platform, fake: FakeGateway | None = None, **options: str) -> FrontendResult:
    """Of a client with FILES; `__` in the name of an option is a colon, `_` a hyphen."""
    named = {name.replace("__", ":").replace("_", "-"): value for name, value in options.items()}
    return await run(build, fake or gateway("", files=FILES), request(named, *platforms))


def config(made: PlatformResult) -> dict[str, Any]:
    return dict(json.loads(made.config)["config"])


async def test_a_state_is_a_result_for_every_platform() -> None:
    """What the state carries is what containers start with."""

    async def build(ctx: Context) -> llb.State:
        return llb.image("busybox").with_env("A", "1").with_dir("/srv").with_user("app").run("true")

    result = await built(build, AMD64, ARM64, label__by="me")
    assert [made.platform for made in result.results] == [AMD64, ARM64]
    assert result.multi_platform
    for made in result.results:
        document = json.loads(made.config)
        assert document["architecture"] == made.platform.architecture
        assert document["config"]["Env"][0].startswith("PATH=")
        assert document["config"]["Env"][1:] == ["A=1"]
        assert (document["config"]["WorkingDir"], document["config"]["User"]) == ("/srv", "app")
        assert document["config"]["Labels"] == {"by": "me"}
        assert {node.op.platform for node in steps(made.definition)} == {made.platform}


async def test_an_image_keeps_the_config_of_its_base() -> None:
    base = image_config(Cmd=["sh"], Env=["PATH=/bin"], Labels={"of": "base"})

    @each_platform
    async def build(ctx: Context) -> Image:
        found = await ctx.image("base")
        image = found.run("make").with_entrypoint("/app", "serve").with_env("PORT", "80").with_port("80")
        return image.with_label("for", str(ctx.platform)).with_health_check("true", interval=1.5).with_volume("/data")

    fake = FakeGateway(images={"docker.io/library/base:latest": base})
    result = await built(build, AMD64, ARM64, fake=fake)
    made = result.results[1]
    assert made.base_config == base
    assert config(made) == {
        "Env": ["PATH=/bin", "PORT=80"], "Entrypoint": ["/app", "serve"],
        "Labels": {"for": "linux/arm64", "of": "base"},
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "WorkingDir": "/",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1500000000},
    }  # fmt: skip
    source = steps(made.definition)[0].source.identifier
    assert source.startswith("docker-image://docker.io/library/base:latest@sha256:")
    assert {each.platform for each in fake.resolved} == {AMD64, ARM64}


async def test_the_context_is_what_the_client_lets_go() -> None:
    """Patterns of the ignore file count, and files of a tree can be read, listed and looked at."""

    async def build(ctx: Context) -> llb.State:
        context = await ctx.context(include=["app.yaml", "src"], exclude=["*.tmp"])
        files = ctx.files(context)
        assert await files.read("app.yaml") == FILES["app.yaml"]
        assert [each.path for each in await files.list("src")] == ["main.py"]
        assert (await files.stat("src/main.py")).size == len(FILES["src/main.py"])
        assert not await files.exists("nothing")
        assert await ctx.here.read_text("app.yaml") == "name: app\nport: http\n"
        with pytest.raises(SourceError, match="nothing"):
            await ctx.here.read("nothing")
        return llb.scratch().file(llb.copy(context, "src", "/app"))

    result = await built(build)
    loaded = steps(result.results[0].definition)[0].source
    assert loaded.identifier == "local://context"
    assert json.loads(loaded.attrs["local.includepattern"]) == ["app.yaml", "src"]
    assert json.loads(loaded.attrs["local.excludepatterns"]) == ["*.log", "*.tmp"]


async def test_warnings_and_errors_point_into_the_users_file() -> None:
    async def build(ctx: Context) -> None:
        file = await ctx.here.source("app.yaml", language="YAML")
        ctx.warn("names are short", file.line(1), detail="for now", url="https://example.org")
        raise file.line(2).error("a port is a number", hint="e.g. port: 80")

    fake = gateway("", files=FILES)
    with pytest.raises(UserError, match="a port is a number") as caught:
        await built(build, fake=fake)
    (location,) = caught.value.locations
    assert (location.filename, location.text, location.language) == ("app.yaml", FILES["app.yaml"], "YAML")
    assert [each.start_line for each in location.ranges] == [2]
    (warning,) = fake.warnings
    assert warning.location is not None
    assert (warning.message, warning.detail, warning.location.ranges[0].start_line) == (
        "names are short", ("for now",), 1,
    )  # fmt: skip


async def test_options_have_types() -> None:
    async def build(ctx: Context) -> None:
        assert ctx.args == {"MODE": "fast", "SOURCE_DATE_EPOCH": "7"}
        assert (ctx.arg("MODE", choices=["fast", "slow"]), ctx.arg("OTHER", "x"), ctx.epoch) == ("fast", "x", 7)
        assert (ctx.target, ctx.no_cache, ctx.secrets) == ("app", True, {"one", "two"})
        assert ctx.platform == AMD64
        with pytest.raises(UserError, match="MODE=fast"):
            ctx.arg("MODE", choices=["slow"])
        raise UserError(ctx.arg("MODES"))

    options = {"build-arg:MODE": "fast", "build-arg:SOURCE_DATE_EPOCH": "7", "target": "app", "no-cache": ""}
    with pytest.raises(UserError, match="MODES is missing") as caught:
        await run(build, gateway(""), request({**options, "secret-ids": "one,two"}))
    assert "did you mean" in (caught.value.hint or "")


async def test_the_dockerfile_frontend_can_be_gone_on_from() -> None:
    """Its result is a tree with its config. Flags of the build that are about other things than its file count."""

    async def build(ctx: Context) -> Image:
        base = await ctx.dockerfile(text='FROM busybox\nENV A=1\nCMD ["serve"]\n', args={"X": "1"}, target="")
        return base.run("make").with_env("B", "2")

    class Nesting(FakeGateway):
        async def run_frontend(self, name: str, options: Any, inputs: Any = ()) -> FrontendResult:
            from frontends.dockerfile.build import DockerfileFrontend

            assert name == "dockerfile.v0"
            assert options == {
                "filename": "Dockerfile", "platform": "linux/amd64", "build-arg:X": "1", "add-hosts": "a:1.2.3.4",
            }  # fmt: skip
            text = llb.State.from_definition(inputs["dockerfile"])
            assert text.output is not None
            inner = gateway('FROM busybox\nENV A=1\nCMD ["serve"]\n')
            return await DockerfileFrontend().build(inner, request({}, AMD64))

    options = {"build-arg:Y": "2", "filename": "build.py", "target": "t", "add-hosts": "a:1.2.3.4"}
    result = await run(build, Nesting(), request(options))
    (made,) = result.results
    assert config(made)["Env"] == ["PATH=/usr/bin", "A=1", "B=2"]
    assert config(made)["Cmd"] == ["serve"]
    last = steps(made.definition)[-1].exec
    assert last.meta.args == ("/bin/sh", "-c", "make")
    assert "A=1" in last.meta.env


async def test_flags_are_about_the_steps_on_images() -> None:
    async def build(ctx: Context) -> llb.State:
        assert (ctx.no_cache, ctx.ignores_cache("test"), ctx.ignores_cache("app")) == (False, True, False)
        first = (await ctx.image("busybox")).run("one")
        return ctx.under_flags(first.state.with_network(llb.NetMode.HOST)).run("two")

    given = {"force-network-mode": "none", "add-hosts": "a=1.2.3.4", "ulimit": "nofile=8:9", "cgroup-parent": "/g"}
    result = await run(build, gateway(""), request({**given, "no-cache": "Test"}))
    one, two = (node.exec for node in steps(result.results[0].definition)[1:])
    for step in (one, two):
        assert step.network is llb.NetMode.NONE
        assert step.meta.cgroup_parent == "/g"
        assert [(each.name, each.soft, each.hard) for each in step.meta.ulimits][:1] == [("nofile", 8, 9)]
    assert [(each.host, each.ip) for each in one.meta.extra_hosts] == [("a", "1.2.3.4")]


async def test_named_contexts_stand_in_the_place_of_images() -> None:
    async def build(ctx: Context) -> Image:
        assert await ctx.named_context("other") is None
        return await ctx.image("base")

    fake = FakeGateway(images={"docker.io/library/real:1": image_config(Cmd=["real"])})
    result = await built(build, fake=fake, context__base="docker-image://real:1")
    assert config(result.results[0])["Cmd"] == ["real"]


async def test_attestations_go_with_the_image() -> None:
    async def build(ctx: Context) -> Image:
        made = Image.of(llb.scratch().file(llb.mkfile("/a", b"")))
        return made.attest("https://example.org/v1", b"{}").attest("https://spdx.dev/Document", made.state, path="/a")

    first, second = (await built(build)).results[0].attestations
    assert (first.claim.predicate_type, first.claim.path) == ("https://example.org/v1", "/predicate.json")
    assert second.claim.path == "/a"
    assert first.definition is not None
    assert isinstance(steps(first.definition)[0].op.payload, FileOp)


@pytest.mark.parametrize(
    ("returned", "platforms", "problem"),
    [
        ("text", (AMD64,), "build() returned a str"),
        ({1: llb.State()}, (AMD64,), "build() returned a mapping of int"),
        ({"linux/amd64": 1}, (AMD64,), "build() returned a int"),
        (
            Image.of(llb.image("a", platform=AMD64)),
            (AMD64, ARM64),
            "for linux/amd64, and was to build for linux/amd64,",
        ),
    ],
)
def test_what_cannot_be_a_result(returned: object, platforms: tuple[Platform, ...], problem: str) -> None:
    with pytest.raises(UserError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        Result.of(returned, platforms)


async def test_a_mapping_names_its_platforms() -> None:
    async def build(ctx: Context) -> dict[str, llb.State]:
        with pytest.raises(UserError, match="several platforms"):
            _ = ctx.platform
        return {"linux/arm64": llb.image("a"), "linux/riscv64": llb.image("b")}

    result = await built(build, AMD64, ARM64)
    assert [made.id for made in result.results] == ["linux/arm64", "linux/riscv64"]


def test_the_api_is_where_its_documentation_says() -> None:
    import frontends

    assert {name: getattr(frontends, name) for name in frontends.__all__}["Files"] is Files
    assert {type(getattr(llb, name)) for name in llb.__all__}
