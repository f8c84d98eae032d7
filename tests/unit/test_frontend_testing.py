"""The testing kit for authors: what a test can give, what it sees, and what it is told when it is wrong."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest
import trio

import llb
from buildengine.builder import CacheEntry
from buildengine.errors import RegistryError, SourceError, UserError
from frontends import Context, Image, Result, each_platform
from frontends import UserError as AuthorsError
from frontends.gateway import FrontendRequest, FrontendResult, Gateway, PlatformResult
from frontends.testing import AMD64, ARM64, FakeGateway, Recorder, image_config, run, run_on, snapshots
from frontends.testing.fixtures import snapshot as snapshot  # the fixture under test

pytest_plugins = ["pytester"]

FILES = {
    "app.yaml": "port: http\n",
    "public/index.html": "hello",
    "public/draft.tmp": "x",
    ".dockerignore": "**/*.tmp\n",
}
IMAGES = {"nginx:alpine": image_config(Cmd=["nginx"]), "golang linux/amd64": image_config()}


async def site(ctx: Context) -> Image:
    public = await ctx.context(include=["public"])
    base = await ctx.image("nginx:alpine")
    return base.file(llb.copy(public, "public", "/srv", contents=True), name="copy").with_port("80")


def test_steps_files_and_config_of_what_was_built() -> None:
    built = run(site, files=FILES, images=IMAGES)
    assert built.files == {"srv/index.html": b"hello"}
    assert (built.config["Cmd"], built.config["ExposedPorts"]) == (["nginx"], {"80/tcp": {}})
    copy = built.step("copy")
    assert copy.copies[0].dest == "/srv"
    assert {each.source.identifier.partition("@")[0] for each in copy.inputs} == {
        "docker-image://docker.io/library/nginx:alpine",
        "local://context",
    }
    assert copy.needs(copy.inputs[0])
    assert not copy.inputs[0].needs(copy)
    assert "read_file .dockerignore" in built.asked
    assert built.asked[-1] == "resolve_image docker.io/library/nginx:alpine for linux/amd64"


def test_a_command_leaves_what_the_test_says() -> None:
    async def build(ctx: Context) -> llb.State:
        go = (await ctx.image("golang")).state
        made = go.run("go build -o /out/app", mounts=[llb.Bind(target="/out")], env={"CGO_ENABLED": "0"})
        version = await ctx.files(made.mount("/out")).read_text("version")
        return llb.scratch().file(llb.copy(made.mount("/out"), "app", f"/bin/app-{version}"), name="install")

    leaves = {"go build": {"/out/app": b"ELF", "/out/version": "2"}}
    built = run(build, images=IMAGES, leaves=leaves)
    assert built.files == {"bin/app-2": b"ELF"}
    step = built.step("go build")
    assert step.argv == ("/bin/sh", "-c", "go build -o /out/app")
    assert step.env["CGO_ENABLED"] == "0"
    assert step.mount("/out").output == 1
    with pytest.raises(AssertionError, match="nothing at /in"):
        step.mount("/in")
    with pytest.raises(SourceError, match="version: no such file"):
        run(build, images=IMAGES)


def test_platforms_arguments_and_warnings() -> None:
    @each_platform
    async def build(ctx: Context) -> Image:
        file = await ctx.here.source("app.yaml")
        ctx.warn("a port is a number", file.line(1))
        return (await ctx.image("nginx:alpine")).run(f"echo {ctx.arg('WHO')} on {ctx.platform}", place=file.line(1))

    built = run(build, files=FILES, images=IMAGES, args={"WHO": "me"}, platforms=["linux/amd64", "linux/arm64"])
    assert built.multi_platform
    assert built.on("linux/arm64").step("echo").platform == ARM64
    assert built.on("linux/arm64").step("echo").lines == (1,)
    assert {warning.message for warning in built.warnings} == {"a port is a number"}
    with pytest.raises(AssertionError, match="only for linux/amd64, linux/arm64"):
        built.on("linux/s390x")
    with pytest.raises(UserError, match="build argument WHO is missing"):
        run(build, files=FILES, images=IMAGES)


def test_secrets_and_inputs() -> None:
    async def build(ctx: Context) -> llb.State:
        made = ctx.inputs["app"].file(llb.mkfile("/secrets", ",".join(sorted(ctx.secrets)).encode()))
        return made.run("deploy", mounts=[llb.Secret(id="token")], ignore_cache=ctx.no_cache)

    app = llb.scratch().file(llb.mkfile("/app", b"ELF"))
    built = run(build, inputs={"app": app}, secrets=["token", "other"], options={"no-cache": ""})
    assert built.files == {"app": b"ELF", "secrets": b"other,token"}
    assert built.step("deploy").mount("/run/secrets/token").secret is not None
    assert built.step("deploy").ignore_cache


def test_what_was_not_given_says_how_to_give_it() -> None:
    async def image(ctx: Context) -> Image:
        return await ctx.image("postgres:16")

    async def download(ctx: Context) -> llb.State:
        tool = llb.http("https://example.org/tool.tar")
        await ctx.files(tool).read("tool.tar")
        return llb.scratch().file(llb.copy(tool, "tool.tar", "/", unpack=True))

    with pytest.raises(RegistryError, match="postgres:16: not found") as missing:
        run(image)
    assert "images={'docker.io/library/postgres:16': image_config()}" in str(missing.value.hint)
    with pytest.raises(SourceError, match="not found") as unknown:
        run(download)
    assert "sources={'https://example.org/tool.tar': {'tool.tar': ...}}" in str(unknown.value.hint)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        info = tarfile.TarInfo("bin/tool")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"tool"))
    given = {"https://example.org/tool.tar": {"tool.tar": packed.getvalue()}}
    assert run(download, sources=given).files == {"bin/tool": b"tool"}
    cut = {"https://example.org/tool.tar": {"tool.tar": lzma.decompress(packed.getvalue())[:514]}}
    with pytest.raises(SourceError, match="the archive is damaged"):
        _ = run(download, sources=cut).files


def test_a_sub_frontend_runs_on_the_fake_as_well() -> None:
    async def build(ctx: Context) -> Image:
        image = await ctx.dockerfile(text="FROM nginx:alpine\nRUN make\nENV A=1\n")
        return image.run("test -e /made")

    built = run(build, images=IMAGES)
    assert built.env["A"] == "1"
    assert built.step("test -e").needs(built.step("RUN make"))
    assert built.step("RUN make").digest in {each.digest for each in built.step("test -e").inputs}


def test_a_sub_frontend_is_asked_for_the_build_that_it_is_a_part_of() -> None:
    """Another than those that are built in is given to the gateway."""

    class Other:
        async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
            await gateway.resolve_image("docker.io/library/golang:latest", platform=request.build_platform, name="look")
            gateway.import_caches([CacheEntry(type="gha")])
            (platform,) = request.platforms
            definition = llb.scratch().file(llb.mkfile("/session", request.session.encode())).marshal(platform)
            return FrontendResult(results=(PlatformResult(platform=platform, definition=definition, config=b""),))

    async def build(ctx: Context) -> Result:
        return await ctx.frontend("other")

    asked = FrontendRequest(options={}, platforms=(ARM64,), build_platform=ARM64, session="mine")
    gateway = FakeGateway(images={"golang linux/arm64": image_config()}, frontends={"other": Other()}, request=asked)
    built = trio.run(run_on, build, gateway)
    assert (built.image.platform, built.files) == (ARM64, {"session": b"mine"})
    assert built.names == ["mkfile /session"]
    assert [(each.platform, each.mode, each.name) for each in gateway.resolved] == [(ARM64, "default", "look")]
    assert gateway.caches == [CacheEntry(type="gha")]


async def test_a_test_may_be_asynchronous_and_see_what_is_asked() -> None:
    recorder = Recorder(FakeGateway(files=FILES, images=IMAGES))
    ctx = Context(recorder, FrontendRequest(options={}, platforms=(AMD64,), build_platform=AMD64))
    files = ctx.files(await ctx.context(use_ignore_file=False))
    assert [each.path for each in await files.list("public")] == ["draft.tmp", "index.html"]
    assert recorder.asked == ["read_dir public"]
    built = await run_on(site, FakeGateway(files=FILES, images=IMAGES))
    assert built.image.platform == AMD64


def test_a_refusal_is_the_authors_own_error() -> None:
    async def build(ctx: Context) -> None:
        raise (await ctx.here.source("app.yaml")).line(1).error("a port is a number", hint="port: 80")

    with pytest.raises(AuthorsError, match="a port is a number") as refused:
        run(build, files=FILES)
    (place,) = refused.value.locations
    assert (place.filename, place.ranges[0].start_line) == ("app.yaml", 1)


# --- snapshots ------------------------------------------------------------------------------------------------


def test_a_snapshot_is_written_once_and_then_compared(tmp_path: Path) -> None:
    file = tmp_path / "snapshots/site.txt"
    snapshots.compare(run(site, files=FILES, images=IMAGES), file)
    written = file.read_text()
    assert written.startswith("== linux/amd64\n1. ")
    assert "copy <- 1, 2" in written
    assert '"Cmd": [\n      "nginx"' in written
    snapshots.compare(run(site, files={**FILES, "other": "1"}, images=IMAGES), file)  # not what it depends on

    async def changed(ctx: Context) -> Image:
        return (await site(ctx)).with_port("81")

    built = run(changed, files=FILES, images=IMAGES)
    with pytest.raises(AssertionError, match=r'\+ +"81/tcp"'):
        snapshots.compare(built, file)
    assert file.read_text() == written
    snapshots.compare(built, file, update=True)
    snapshots.compare(built, file)


def test_the_fixture_keeps_a_file_for_each_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -p frontends.testing.fixtures\n")
    pytester.makepyfile("""
        import llb
        from frontends.testing import run

        async def build(ctx):
            return llb.scratch().file(llb.mkfile("/a", ctx.arg("A", "1").encode()))

        def test_it(snapshot, request):
            snapshot(run(build, args=dict(request.config.getoption("-k") and [("A", "2")] or [])))
        """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert (pytester.path / "snapshots/test_it.txt").exists()
    changed = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "it")
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(["*if that is meant, run pytest --update-snapshots*"])
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "it", "--update-snapshots").assert_outcomes(passed=1)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "it").assert_outcomes(passed=1)
