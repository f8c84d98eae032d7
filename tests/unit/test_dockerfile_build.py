"""The edge of the frontend: where Dockerfile, ignore file and context come from, named contexts, platforms."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from buildengine.builder import CacheEntry
from buildengine.errors import BuildError, ParseError
from buildengine.platform import Platform
from buildengine.sourcepolicy import Policy
from frontends.dockerfile.build import DockerfileFrontend
from frontends.gateway import FrontendRequest, ResolvedImage
from frontends.testing import AMD64, ARM64, Built, FakeGateway
from frontends.testing.gateway import FakeReference
from llb import codec
from llb.definition import Definition
from llb.ops import CopyAction, FileOp, SourceOp
from llb.sources import image
from tests.fakes.gateway import BASES, build, gateway, image_config, request

B = "FROM busybox\n"


async def run(fake: FakeGateway, options: dict[str, str], **more: Any) -> Built:
    asked = FrontendRequest(options=options, platforms=(AMD64,), build_platform=AMD64, **more)
    return Built(result=await DockerfileFrontend().build(fake, asked), gateway=fake)


def source(definition: Definition) -> SourceOp:
    payload = codec.decode(definition.ops[0]).payload
    assert isinstance(payload, SourceOp)
    return payload


def attrs(definition: Definition) -> dict[str, Any]:
    return {
        k.removeprefix("local."): json.loads(v) if v.startswith("[") else v for k, v in source(definition).attrs.items()
    }


# --- caches


async def test_caches_to_look_in() -> None:
    """In both forms; what is no list of caches is an error."""
    fake = gateway(B)
    entries = json.dumps([{"Type": "registry", "Attrs": {"ref": "a"}}, {"Type": "gha"}])
    await run(fake, {"cache-imports": entries, "cache-from": "b,c"})
    named = [CacheEntry(type="registry", attrs={"ref": name}) for name in "abc"]
    assert fake.caches == [named[0], CacheEntry(type="gha"), *named[1:]]
    for wrong in ("{", "{}x", "[1]", '[{"Attrs": {}}]', '[{"Type": "a", "Attrs": 1}]', "1"):
        with pytest.raises(BuildError, match="failed to unmarshal cache-imports"):
            await run(gateway(B), {"cache-imports": wrong})


# --- Dockerfile, ignore file, local context -------------------------------------------------------------------


async def test_what_is_asked_of_the_client() -> None:
    built = await build(
        B + "COPY a b/*.c ./d /x/\nADD e f\nRUN --mount=source=g,target=/g x\n", files={".dockerignore": b"*.o\n!x.o\n"}
    )
    dockerfile, ignore = built.gateway.solved
    assert source(dockerfile).identifier == "local://dockerfile"
    assert attrs(dockerfile) == {
        "followpaths": ["Dockerfile", "Dockerfile.dockerignore", "dockerfile"],
        "sharedkeyhint": "dockerfile",
        "differ": "none",
    }
    assert attrs(ignore) == {
        "followpaths": [".dockerignore"],
        "sharedkeyhint": "context-.dockerignore",
        "differ": "none",
    }
    names = [d.metadata[d.digests()[0]].description["llb.customname"] for d in built.gateway.solved]
    assert names == ["[internal] load build definition from Dockerfile", "[internal] load .dockerignore"]
    context = built.step("[internal] load build context").source
    assert json.loads(context.attrs["local.followpaths"]) == ["a", "b/*.c", "d", "e", "g"]
    assert json.loads(context.attrs["local.excludepatterns"]) == ["*.o", "!x.o"]
    assert context.attrs["local.sharedkeyhint"] == "context"


@pytest.mark.parametrize("instruction", ["COPY . /x", "RUN --mount=target=/x y", "COPY a / /x/"])
async def test_all_of_the_context(instruction: str) -> None:
    context = (await build(B + instruction + "\n")).step("load build context").source
    assert "local.followpaths" not in context.attrs


async def test_a_context_that_nothing_needs_is_not_loaded() -> None:
    assert not any("context" in name for name in (await build(B + "RUN x\n")).names)


async def test_the_ignore_file_of_the_dockerfile_wins() -> None:
    files = {"Dockerfile.dockerignore": b"a\n", ".dockerignore": b"b\n"}
    built = await build(B + "COPY x y\n", files=files)
    assert json.loads(built.step("load build context").source.attrs["local.excludepatterns"]) == ["a"]
    assert len(built.gateway.solved) == 1


async def test_an_empty_ignore_file_of_the_dockerfile_wins_too() -> None:
    built = await build(B + "COPY x y\n", files={"Dockerfile.dockerignore": b"", ".dockerignore": b"b\n"})
    assert "local.excludepatterns" not in built.step("load build context").source.attrs


async def test_ignore_files_are_cleaned() -> None:
    text = b"\xef\xbb\xbf# comment\n\n  /a/b/  \r\n!./c\n ! /d \n# x\n/\n x/../y \n"
    built = await build(B + "COPY x y\n", files={".dockerignore": text})
    found = json.loads(built.step("load build context").source.attrs["local.excludepatterns"])
    assert found == ["a/b", "!c", "!d", "/", "y"]


async def test_a_bad_pattern_is_an_error_of_the_ignore_file() -> None:
    with pytest.raises(ParseError, match=r"failed parsing .dockerignore: syntax error in pattern '\[a'") as caught:
        await build(B + "COPY x y\n", files={".dockerignore": b"ok\n[a\n"})
    (location,) = caught.value.locations
    assert (location.filename, location.ranges[0].start_line) == (".dockerignore", 2)


@pytest.mark.parametrize(
    ("filename", "there"), [("Dockerfile", "dockerfile"), ("sub/Dockerfile", "sub/dockerfile"), ("x.df", "x.df")]
)
async def test_names_of_the_dockerfile(filename: str, there: str) -> None:
    fake = FakeGateway(sources={"local://dockerfile": {there: b"FROM scratch\nLABEL a=b\n"}}, images=BASES)
    built = await run(fake, {"filename": filename})
    assert built.config["Labels"] == {"a": "b"}


async def test_a_missing_dockerfile_tells_what_is_there() -> None:
    fake = FakeGateway(sources={"git://h/b.git": {"Dockerfile.dev": b"", "README": b""}})
    with pytest.raises(BuildError, match="failed to read dockerfile: open Dockerfile") as caught:
        await run(fake, {"context": "https://h/b.git"})
    assert caught.value.hint == "there is Dockerfile.dev; name it with --file"


async def test_sessions_and_another_directory_for_the_dockerfile() -> None:
    fake = FakeGateway(
        sources={"local://df": {"Dockerfile": (B + "COPY a b\n").encode()}, "local://context": {}}, images=BASES
    )
    built = await run(fake, {"dockerfilekey": "df", "local-sessionid:df": "s1", "local-sessionid:context": "s2"})
    assert attrs(fake.solved[0])["session"] == "s1"
    assert built.step("load build context").source.attrs["local.session"] == "s2"


# --- remote contexts ------------------------------------------------------------------------------------------


async def test_a_git_context_holds_everything() -> None:
    address = "https://github.com/a/b.git#v1:sub"
    fake = FakeGateway(
        sources={"git://github.com/a/b.git#v1:sub": {"Dockerfile": b"FROM busybox\nCOPY x y\n"}}, images=BASES
    )
    built = await run(fake, {"context": address, "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"})
    node = built.step(f"[internal] load git source {address}")
    assert node.source.attrs["git.keepgitdir"] == "true"
    assert len(fake.solved) == 1


async def test_short_github_contexts() -> None:
    fake = FakeGateway(sources={"git://github.com/a/b": {"Dockerfile": b"FROM scratch\n"}})
    await run(fake, {"context": "github.com/a/b"})
    assert source(fake.solved[0]).identifier == "git://github.com/a/b"


async def test_a_local_dockerfile_for_a_remote_context() -> None:
    fake = FakeGateway(sources={"local://dockerfile": {"Dockerfile": b"FROM busybox\nCOPY x y\n"}}, images=BASES)
    built = await run(fake, {"context": "https://h/b.git", "dockerfilekey": "dockerfile"})
    assert built.names[-2].startswith("[internal] load git source")


async def test_an_http_context_is_a_dockerfile_or_an_archive() -> None:
    dockerfile = b"FROM busybox\nCOPY x y\n"
    fake = FakeGateway(sources={"https://h/x": {"context": dockerfile}}, images=BASES)
    built = await run(fake, {"context": "https://h/x"})
    assert "[internal] load remote build context" in built.names
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("sub/D")
        info.size = len(dockerfile)
        archive.addfile(info, io.BytesIO(dockerfile))
    fake = FakeGateway(sources={"https://h/x": {"context": packed.getvalue()}}, images=BASES)
    await run(fake, {"context": "https://h/x", "filename": "sub/D"})
    payload = codec.decode(fake.solved[1].ops[1]).payload
    assert isinstance(payload, FileOp)
    (action,) = payload.actions
    assert isinstance(action.action, CopyAction)
    assert (action.action.src, action.action.dest, action.action.attempt_unpack) == ("/context", "/", True)
    fake = FakeGateway(sources={"https://h/x": {"context": packed.getvalue()[:20]}}, images=BASES)
    with pytest.raises(BuildError, match="failed to read dockerfile") as caught:
        await run(fake, {"context": "https://h/x"})
    assert "damaged archive" in str(caught.value.hint)


async def test_a_part_of_a_remote_context() -> None:
    fake = FakeGateway(sources={"git://h/b.git": {"Dockerfile": b"FROM busybox\nCOPY x y\n"}}, images=BASES)
    built = await run(fake, {"context": "https://h/b.git", "contextsubdir": "sub/dir"})
    copies = built.steps[-1].inputs[1].copies
    assert [(c.src, c.dest, c.dir_copy_contents) for c in copies] == [("/sub/dir", "/", True)]


async def test_inputs_of_another_build() -> None:
    context = image("docker.io/library/ctx").marshal(AMD64)
    fake = gateway(B + "COPY x y\n")
    built = await run(fake, {}, inputs={"context": context})
    assert "docker-image://docker.io/library/ctx:latest" in [
        n.source.identifier for n in built.steps if not n.op.inputs
    ]


# --- named contexts -------------------------------------------------------------------------------------------


async def test_an_image_in_the_place_of_an_image() -> None:
    built = await build(
        "FROM busybox\nRUN x\n",
        {"context:busybox": "docker-image://alpine"},
        images={"docker.io/library/alpine:latest": image_config(User="u")},
    )
    assert built.names[0] == "[context busybox] alpine"
    assert built.config["User"] == "u"
    assert [each.identifier for each in built.gateway.resolved] == ["docker-image://docker.io/library/alpine:latest"]


async def test_a_context_for_one_platform_comes_first() -> None:
    options = {"context:busybox": "docker-image://no", "context:busybox::linux/amd64": "docker-image://alpine"}
    assert (await build("FROM docker.io/library/busybox:latest\nRUN x\n", options)).names[
        0
    ] == "[context busybox::linux/amd64] alpine"


async def test_a_local_directory_in_the_place_of_a_stage() -> None:
    fake = gateway("FROM missing AS src\nRUN ignored\nFROM busybox\nCOPY --from=src a b/ /x/\n")
    fake.sources = {"local://dir": {".dockerignore": b"*.o\n"}}
    built = await run(fake, {"context:src": "local:dir"})
    node = built.step("[context src] load from client")
    assert json.loads(node.source.attrs["local.followpaths"]) == ["a", "b"]
    assert json.loads(node.source.attrs["local.excludepatterns"]) == ["*.o"]
    assert node.source.attrs["local.sharedkeyhint"] == "context:src"


async def test_a_local_directory_as_a_base() -> None:
    built = await build("FROM base\nRUN x\n", {"context:base": "local:dir"})
    node = built.step("[context base] load from client")
    assert "local.followpaths" not in node.source.attrs
    assert built.config["Env"][0].startswith("PATH=")


@pytest.mark.parametrize(
    ("value", "identifier"),
    [
        ("https://github.com/a/b.git#v1", "git://github.com/a/b.git#v1"),
        ("git@h:p.git", "git://h/p.git"),
        ("https://h/file", "https://h/file"),
    ],
)
async def test_remote_contexts_by_name(value: str, identifier: str) -> None:
    built = await build("FROM busybox\nCOPY --from=src a b\n", {"context:src": value})
    assert identifier in [n.source.identifier for n in built.steps if not n.op.inputs]


async def test_scratch_and_inputs_by_name() -> None:
    built = await build("FROM base\nCOPY a b\n", {"context:base": "docker-image://scratch"})
    assert built.names == ["[internal] load build context", "[1/2] COPY a b"]
    config = base64.b64encode(image_config(User="u")).decode()
    metadata = json.dumps({"containerimage.config": config})
    definition = image("docker.io/library/other").marshal(AMD64)
    built = await run(
        gateway("FROM base\nRUN x\n"),
        {"context:base": "input:t", "input-metadata:t": metadata},
        inputs={"t": definition},
    )
    assert built.config["User"] == "u"
    assert built.steps[0].source.identifier == "docker-image://docker.io/library/other:latest"


async def test_scratch_and_context_are_never_replaced() -> None:
    options = {"context:scratch": "docker-image://alpine", "context:context": "docker-image://alpine"}
    assert (await build("FROM scratch\nCOPY a b\n", options)).gateway.resolved == []


# --- platforms, images, syntax --------------------------------------------------------------------------------


async def test_one_result_for_each_platform() -> None:
    images = {"docker.io/library/busybox:latest linux/arm64": image_config(platform=ARM64)}
    built = await build(B + "ARG TARGETARCH\nRUN $TARGETARCH\n", {"platform": "x"}, AMD64, ARM64, images=images)
    found = {str(r.platform): json.loads(r.config)["architecture"] for r in built.result.results}
    assert found == {"linux/amd64": "amd64", "linux/arm64": "arm64"}
    based_on = {str(r.platform): json.loads(r.base_config)["architecture"] for r in built.result.results}
    assert based_on == found


async def test_one_platform_can_be_asked_for_as_several() -> None:
    built = await build(B, {"multi-platform": "true"})
    assert built.names[0].startswith("[linux/amd64 1/1] FROM")
    with pytest.raises(BuildError, match="multiple target platforms is not allowed"):
        await build(B, {"multi-platform": "false"}, AMD64, ARM64)


async def test_images_are_pinned_and_resolved_at_once() -> None:
    class Slow(FakeGateway):
        running = most = 0

        async def resolve_image(
            self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
        ) -> ResolvedImage:
            Slow.running += 1
            Slow.most = max(Slow.most, Slow.running)
            await trio.testing.wait_all_tasks_blocked()
            Slow.running -= 1
            return await super().resolve_image(reference, platform=platform, mode=mode)

    dockerfile = "FROM busybox AS a\nFROM alpine\nCOPY --from=a x y\nCOPY --from=golang:1 x y\n"
    fake = Slow(beside={"Dockerfile": dockerfile}, images=BASES)
    built = await run(fake, {"image-resolve-mode": "pull"})
    assert Slow.most == 3
    sources = [n.source for n in built.steps if not n.op.inputs and "FROM" in n.name]
    assert all("@sha256:" in s.identifier and s.attrs["image.resolvemode"] == "pull" for s in sources)
    assert any(s.identifier.startswith("docker-image://docker.io/library/golang:1@sha256:") for s in sources)


async def test_a_context_that_nobody_has_is_no_failure_of_a_file_that_takes_nothing_of_it() -> None:
    """Whatever class of error an engine elsewhere has for that."""

    class WithoutContext(FakeGateway):
        async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> FakeReference:
            payload = codec.decode(definition.ops[0]).payload
            if isinstance(payload, SourceOp) and payload.identifier == "local://context":
                raise BuildError("no local sources enabled")
            return await super().solve(definition, policies)

    built = await run(WithoutContext(beside={"Dockerfile": "FROM scratch\nENV a=b\n"}), {})
    assert json.loads(built.image.result.config)["config"]["Env"][-1] == "a=b"


async def test_one_failure_is_raised_alone() -> None:
    with pytest.raises(BuildError, match=r"docker\.io/library/x1:latest: not found"):
        await build("FROM x1 AS a\nFROM x1 AS b\nFROM scratch\nCOPY --from=a x y\nCOPY --from=b x y\n")


async def test_a_request_without_options() -> None:
    result = await DockerfileFrontend().build(gateway("FROM scratch\n"), request())
    assert result.results[0].definition is None


async def test_names_of_what_is_resolved() -> None:
    one = await build("FROM busybox\n")
    (asked,) = one.gateway.resolved
    assert asked.name == "[internal] load metadata for docker.io/library/busybox:latest"
    several = await build("FROM busybox\n", None, AMD64, ARM64)
    assert sorted(each.name for each in several.gateway.resolved) == [
        "[linux/amd64 internal] load metadata for docker.io/library/busybox:latest",
        "[linux/arm64 internal] load metadata for docker.io/library/busybox:latest",
    ]
    named = await build("FROM x\n", {"context:x": "docker-image://busybox"})
    (asked,) = named.gateway.resolved
    assert asked.name == "[context x] load metadata for docker.io/library/busybox:latest"


async def test_an_empty_input_has_no_dockerfile() -> None:
    with pytest.raises(BuildError, match="invalid nil input definition to definition op"):
        await run(gateway(B), {}, inputs={"dockerfile": Definition.from_bytes(b"")})


async def test_what_was_found_before_a_mistake_is_told_whichever_platform_makes_it() -> None:
    for _ in range(20):  # tasks begin in any order
        fake = gateway("ARG ARCH=amd64\nFROM --platform=linux/${ARHC} busybox\n")
        asked = FrontendRequest(options={}, platforms=(AMD64, ARM64), build_platform=AMD64)
        with pytest.raises(BuildError, match="failed to parse platform"):
            await DockerfileFrontend().build(fake, asked)
        assert [warned.message.partition(":")[0] for warned in fake.warnings] == ["UndefinedArgInFrom"]
