"""Both halves of the gateway API back to back: what a frontend elsewhere asks is what one in the engine would ask."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

import llb
from buildengine.api import rpc
from buildengine.api.answering import answer
from buildengine.api.frames import LARGEST, BrokenFrame, Frame, Kind, Reader, call, called, encode
from buildengine.api.gateway import SERVICE
from buildengine.api.gateway import Gateway as Servicer
from buildengine.api.rpc import RpcError
from buildengine.api.status import to_rpc
from buildengine.client.gateway import RemoteGateway
from buildengine.daemon.bridge import Bridge
from buildengine.digest import Digest
from buildengine.errors import BuildError, ParseError, SourceError, UserError
from buildengine.sourcepolicy import Action, Policy, Rule, Selector
from frontends import Context, Image
from frontends.gateway import FrontendRequest, FrontendResult, ResolvedHttp, ResolvedImage
from frontends.python.building import run
from frontends.testing import AMD64, ARM64, FakeGateway, steps
from llb.ops import SourceOp
from tests.fakes.bridges import WORKER
from tests.fakes.gateway import gateway, image_config, request

FILES = {"app.yaml": b"a: 1\nb\n", "large": b"x" * (9 << 20)}


def halves(on: FakeGateway, asked: FrontendRequest) -> tuple[RemoteGateway, Bridge]:
    """A client and the bridge that answers it, without a transport between them."""
    bridge = Bridge(on, asked)

    async def find(_: rpc.Metadata) -> Bridge:
        return bridge

    services = Servicer(find, lambda: WORKER).services

    async def carry(method: str, message: bytes) -> bytes:
        try:
            return await answer(services, f"/{SERVICE}/{method}", message)
        except (RpcError, BuildError) as error:
            raise to_rpc(error) from error

    return RemoteGateway(carry), bridge


async def through(
    build: Callable[[Context], Awaitable[object]], on: FakeGateway, asked: FrontendRequest
) -> FrontendResult:
    """What the engine gets of `build`, run elsewhere."""
    remote, bridge = halves(on, asked)

    async def checked(ctx: Context) -> llb.State | Image | None:
        made = await build(ctx)
        assert made is None or isinstance(made, llb.State | Image)
        return made

    try:
        result = await run(checked, remote, asked)
    except BuildError as error:
        await remote.fail(error)
    else:
        await remote.finish(result)
    return bridge.result()


async def test_a_result_is_the_same_from_elsewhere() -> None:
    async def build(ctx: Context) -> Image:
        context = await ctx.context()
        base = await ctx.dockerfile("Dockerfile")
        assert await ctx.files(context).read("app.yaml") == FILES["app.yaml"]
        assert await ctx.here.exists("large")
        assert not await ctx.here.exists("nothing")
        assert len(await ctx.files(context).read("large")) == 9 << 20
        with pytest.raises(UserError, match="longer than 100 bytes"):
            await ctx.files(context).read("large", limit=100)
        assert ctx.inputs["given"].output is not None
        ctx.warn("hm", (await ctx.here.source("app.yaml")).line(2))
        return base.run("echo").attest("https://example.org/", b"{}")

    base = {"docker.io/library/base:latest": image_config(Cmd=["sh"], Env=["A=1"])}
    asked = FrontendRequest(
        options={"build-arg:X": "1"},
        platforms=(AMD64, ARM64),
        build_platform=AMD64,
        inputs={"given": llb.image("x").marshal(AMD64)},
    )

    async def each(ctx: Context) -> Image:
        return await build(ctx.on(AMD64))

    single = FrontendRequest(options=asked.options, platforms=(AMD64,), build_platform=AMD64, inputs=asked.inputs)
    results, warnings = [], []
    for runner in (through, run):
        on = gateway("FROM base\nRUN make\n", files=FILES, images=base)
        results.append(await runner(each, on, single))
        warnings.append([(each.message, each.location and each.location.ranges) for each in on.warnings])
    remote, local = (result.results[0] for result in results)
    assert json.loads(remote.config) == json.loads(local.config)
    assert remote.definition is not None
    assert local.definition is not None
    assert remote.definition.ops == local.definition.ops
    assert [node.name for node in steps(remote.definition)] == [node.name for node in steps(local.definition)]
    assert remote.attestations[0].claim == local.attestations[0].claim
    assert warnings[0] == warnings[1]


async def test_an_error_keeps_its_class_and_its_place() -> None:
    async def build(ctx: Context) -> None:
        file = await ctx.here.source("app.yaml")
        raise ParseError("no value", hint="b: 2", locations=(file.line(2).location,))

    with pytest.raises(BuildError, match="no value") as caught:
        await through(build, gateway("", files=FILES), request())
    (location,) = caught.value.locations
    assert (caught.value.hint, location.filename, location.ranges[0].start_line) == ("b: 2", "app.yaml", 2)


async def test_sources_are_resolved_elsewhere() -> None:
    http = {"https://example.org/x": {"x": b"data"}}
    on = FakeGateway(images={"docker.io/library/a:1": image_config()}, sources=http)
    remote, _ = halves(on, request())
    image = await remote.resolve_image("docker.io/library/a:1", platform=ARM64, mode="pull", name="shown")
    assert isinstance(image, ResolvedImage)
    assert (image.config, [each.name for each in on.resolved]) == (image_config(), ["shown"])
    found = await remote.resolve_source(SourceOp(identifier="https://example.org/x"), platform=None)
    assert isinstance(found, ResolvedHttp)
    assert (found.checksum, found.filename) == (Digest.sha256(b"data"), "x")
    with pytest.raises(SourceError, match="not found"):
        await remote.resolve_image("docker.io/library/b:1", platform=AMD64)
    denied = Policy(rules=(Rule(action=Action.DENY, selector=Selector(identifier="*")),))
    await remote.solve(llb.image("a").marshal(AMD64), [denied])


def test_frames_come_in_any_pieces() -> None:
    sent = [call(7, "Solve", b"message"), Frame(Kind.ANSWER, 8, b""), Frame(Kind.FAILURE, 9, b"x" * 70000)]
    data = b"".join(map(encode, sent))
    for size in (1, 3, 4096, len(data)):
        reader = Reader()
        found = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
        assert found == sent
        assert reader.is_between
    assert called(sent[0]) == ("Solve", b"message")


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\5\7aaaa", (LARGEST + 1).to_bytes(4, "big")]
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(Reader().feed(data))
    with pytest.raises(BrokenFrame):
        called(Frame(Kind.CALL, 1, b"\5ab"))
    with pytest.raises(BrokenFrame):
        encode(Frame(Kind.CALL, 1, bytes(LARGEST)))
