"""A bridge on a gateway without an engine: references, frontends that run for it, its last word, and its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from buildengine.api.bridge import Ref, Result, SolveOrder
from buildengine.api.returned import CONFIG, PLATFORMS, heard, told
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.api.solvestatus import FRONTEND, SOLVE
from buildengine.api.status import FRONTEND_CAP, SOURCE, VERTEX, Told, to_rpc
from buildengine.config import Config, FrontendConfig
from buildengine.daemon import bridge as bridges
from buildengine.daemon.bridge import Bridge
from buildengine.daemon.catalog import Catalog
from buildengine.digest import Digest
from buildengine.errors import ExecFailed, UserError
from buildengine.events import WarningEvent
from buildengine.platform import Platform, local
from buildengine.sourcepolicy import Policy
from frontends.gateway import FrontendRequest
from frontends.testing import ARM64, FakeGateway
from frontends.testing.gateway import FakeReference, Resolving
from llb import codec
from llb.definition import Definition
from llb.ops import SourceOp
from llb.sources import image
from llb.sources import local as directory
from tests.fakes.bridges import WORKER
from tests.fakes.gateway import gateway, request
from worker.runtime.runtime import Runtime

CONTEXT = directory("context").marshal()
FILES = {"a": b"0123456789", "d/b": b"b"}


def bridge(on: FakeGateway | None = None, asked: FrontendRequest | None = None) -> Bridge:
    return Bridge(on or gateway("FROM scratch\nCOPY a /\n", files=FILES), asked or request())


class FailingReference(FakeReference):
    """What it was made of cannot be computed."""

    error: ExecFailed

    async def evaluate(self) -> None:
        raise self.error


class FailingGateway(FakeGateway):
    def __init__(self, error: ExecFailed) -> None:
        super().__init__()
        self.error = error

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> FakeReference:
        reference = FailingReference(definition=definition, gateway=self)
        reference.error = self.error
        return reference


# --- references --------------------------------------------------------------------------------------------------


async def test_a_definition_becomes_a_reference_whose_files_are_read() -> None:
    asked = bridge()
    ref = (await asked.solve(SolveOrder(definition=CONTEXT, evaluate=True))).ref
    assert ref.definition is CONTEXT
    assert await asked.read_file(ref.id, "/a", offset=2, length=3) == b"234"
    assert [info.path for info in await asked.read_dir(ref.id, "/", include="")] == ["a", "d"]
    assert (await asked.stat_file(ref.id, "/d/b")).size == 1
    await asked.evaluate(ref.id)


async def test_every_solve_gives_a_reference_of_its_own() -> None:
    asked = bridge()
    first, second = [await asked.solve(SolveOrder(definition=CONTEXT)) for _ in range(2)]
    assert first.ref.id != second.ref.id


async def test_nothing_to_solve_is_the_empty_tree() -> None:
    assert await bridge().solve(SolveOrder(evaluate=True)) == Result()


@pytest.mark.parametrize("ref", ["", "elsewhere"])
async def test_a_reference_that_nobody_gave(ref: str) -> None:
    with pytest.raises(RpcError, match="no such ref"):
        await bridge().read_file(ref, "/a")


async def test_a_failure_tells_of_the_operation() -> None:
    definition = image("base").run("false", name="run false").root.marshal()
    vertex = next(Digest.sha256(op) for op in definition.ops if b"false" in op)
    error = ExecFailed("it failed", argv=("false",), exit_code=1).located(vertex=vertex)
    with pytest.raises(RpcError, match="it failed") as caught:
        await bridge(FailingGateway(error)).solve(SolveOrder(definition=definition, evaluate=True))
    told = {detail.type_url: json.loads(detail.value) for detail in caught.value.details}
    assert told[VERTEX] == {"digest": vertex}
    assert told[SOLVE]["op"]["exec"]["meta"]["args"][-1] == "false"
    assert told[SOLVE]["description"]["llb.customname"] == "run false"


# --- frontends that run for it -----------------------------------------------------------------------------------


async def test_a_frontend_gives_a_reference_and_metadata() -> None:
    asked = bridge()
    result = await asked.solve(SolveOrder(frontend="dockerfile.v0"))
    assert result.refs is None
    assert result.ref.definition is not None
    assert json.loads(result.metadata[CONFIG])["architecture"] == "amd64"
    listed = json.loads(result.metadata[PLATFORMS])["Platforms"]
    assert listed == [{"ID": "linux/amd64", "Platform": {"architecture": "amd64", "os": "linux"}}]


async def test_platforms_among_the_options_give_a_set() -> None:
    order = SolveOrder(frontend="dockerfile.v0", options={"platform": "linux/amd64, linux/aarch64"})
    result = await bridge().solve(order)
    assert result.refs is not None
    assert sorted(result.refs) == ["linux/amd64", "linux/arm64"]
    assert json.loads(result.metadata[f"{CONFIG}/linux/arm64"])["architecture"] == "arm64"


async def test_a_frontend_reads_the_directories_of_the_builds_client() -> None:
    on = gateway("FROM scratch\nCOPY a /\n", files=FILES)
    on.request = replace(request(), session="s1")
    result = await bridge(on).solve(SolveOrder(frontend="dockerfile.v0"))
    assert result.ref.definition is not None
    sources = [codec.decode(op).payload for op in result.ref.definition.ops]
    assert "s1" in [source.attrs.get("local.session") for source in sources if hasattr(source, "attrs")]


async def test_a_frontends_error_tells_of_it_and_of_the_file() -> None:
    with pytest.raises(RpcError, match="unknown instruction: FORM") as caught:
        await bridge(gateway("FORM scratch\n")).solve(SolveOrder(frontend="dockerfile.v0"))
    told = {detail.type_url: json.loads(detail.value) for detail in caught.value.details}
    assert told[FRONTEND] == {"name": "dockerfile.v0", "source": ""}
    assert told[SOURCE]["info"]["filename"] == "Dockerfile"
    assert caught.value.code is Code.UNKNOWN


async def test_a_capability_that_our_frontend_has_not() -> None:
    frontend = "moby.buildkit.frontend"
    known = SolveOrder(frontend="dockerfile.v0", options={"frontend.caps": f"{frontend}.inputs,{frontend}.subrequests"})
    assert (await bridge().solve(known)).ref.id
    order = SolveOrder(frontend="dockerfile.v0", options={"frontend.caps": f"{frontend}.dreams+forward"})
    with pytest.raises(RpcError, match=r"capability .*dreams") as caught:
        await bridge().solve(order)
    assert caught.value.code is Code.UNIMPLEMENTED
    told = {each.type_url: each.value for each in caught.value.details}
    assert json.loads(told[FRONTEND_CAP]) == {"name": f"{frontend}.dreams"}


async def no_runtime() -> Runtime:
    raise AssertionError("nothing runs here")


async def test_a_frontend_that_nobody_knows_or_may_run() -> None:
    with pytest.raises(RpcError, match=r"invalid frontend: nope\.v0"):
        await bridge().solve(SolveOrder(frontend="nope.v0"))
    config = Config(frontends={"dockerfile.v0": FrontendConfig(enabled=False)})
    with pytest.raises(UserError, match=r"invalid frontend: dockerfile\.v0"):
        Catalog(config, lambda: WORKER, no_runtime).find("dockerfile.v0")


# --- sources, inputs, warnings -----------------------------------------------------------------------------------


async def test_sources_are_resolved_as_they_are_asked_for() -> None:
    on = gateway("")
    source = SourceOp(identifier="docker-image://docker.io/library/busybox:latest")
    for platform in (None, ARM64):
        await bridge(on).resolve_source(source, platform=platform, mode="pull", name="")
    assert on.resolved == [
        Resolving(identifier=source.identifier, platform=each, mode="pull", name="") for each in (None, ARM64)
    ]


async def test_inputs_are_those_of_the_request() -> None:
    assert bridge(asked=replace(request(), inputs={"x": CONTEXT})).inputs() == {"x": CONTEXT}


# --- the last word -----------------------------------------------------------------------------------------------


async def test_what_is_returned_is_the_builds_result() -> None:
    asked = bridge()
    ref = (await asked.solve(SolveOrder(definition=CONTEXT))).ref
    asked.finish(Result(ref=Ref(id=ref.id), metadata={CONFIG: b'{"os": "linux", "architecture": "arm64"}'}))
    result = asked.result()
    (made,) = result.results
    assert (made.platform, made.definition, result.multi_platform) == (ARM64, CONTEXT, False)


async def test_an_error_that_is_returned_is_the_builds_with_its_details() -> None:
    asked = bridge()
    said = RpcError(Code.ABORTED, "I give up", (Detail(type_url="x/y", value=b"{}"),))
    asked.fail(said)
    with pytest.raises(Told) as caught:
        asked.result()
    told = to_rpc(caught.value)
    assert (told.code, told.message, told.details) == (said.code, said.message, said.details)


async def test_a_result_that_cannot_be_meant_is_the_builds_failure() -> None:
    asked = bridge()
    asked.finish(Result(metadata={PLATFORMS: b"null"}))
    with pytest.raises(UserError, match="invalid empty platforms"):
        asked.result()


async def test_there_is_one_last_word() -> None:
    asked = bridge()
    asked.finish(Result())
    with pytest.raises(RpcError, match="already set"):
        asked.finish(Result())
    with pytest.raises(RpcError, match="already set"):
        asked.fail(RpcError(Code.UNKNOWN, "too late"))
    assert (asked.result()).results[0].definition is None


async def test_a_reference_that_was_never_given_is_no_result() -> None:
    asked = bridge()
    with pytest.raises(RpcError, match="no such ref: x"):
        asked.finish(Result(ref=Ref(id="x")))
    asked.finish(Result())


async def test_what_a_frontend_leaves_with_us_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "DEFINITIONS", 3 << 10)
    monkeypatch.setattr(bridges, "WARNINGS", 3 << 10)
    asked = bridge()
    for ask in (
        lambda: asked.solve(SolveOrder(definition=CONTEXT)),
        lambda: asked.warn(WarningEvent(vertex="", message="w" * 500)),
    ):
        for _ in range(2):
            await ask()
        with pytest.raises(RpcError, match="the frontend has given more than 3KiB of") as caught:
            await ask()
        assert caught.value.code is Code.RESOURCE_EXHAUSTED


# --- its end -----------------------------------------------------------------------------------------------------


class HangingGateway(FakeGateway):
    def __init__(self) -> None:
        super().__init__()
        self.begun = trio.Event()

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> FakeReference:
        self.begun.set()
        await trio.sleep_forever()
        raise AssertionError


async def test_what_is_still_asked_ends_with_the_bridge() -> None:
    on = HangingGateway()
    asked = bridge(on)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(RpcError) as caught:
                await asked.solve(SolveOrder(definition=CONTEXT))
            assert caught.value.code is Code.CANCELLED

        nursery.start_soon(ask)
        await on.begun.wait()
        await asked.close()
    with pytest.raises(RpcError, match="the build has its result"):
        await asked.evaluate("r")


# --- results from elsewhere --------------------------------------------------------------------------------------


def listing(*ids: str) -> bytes:
    members = [{"ID": id, "Platform": {"os": "linux", "architecture": "arm64"}} for id in ids]
    return json.dumps({"Platforms": members}).encode()


def keys(result: Result) -> Sequence[tuple[str, Platform]]:
    return [(made.key, made.platform) for made in heard(result, {}).results]


def test_the_list_of_platforms_says_what_the_keys_mean() -> None:
    result = Result(refs={"b": Ref(), "a": Ref()}, metadata={PLATFORMS: listing("a", "b"), f"{CONFIG}/b": b'{"x":1}'})
    assert keys(result) == [("a", ARM64), ("b", ARM64)]
    assert heard(result, {}).results[1].config == b'{"x":1}'
    assert heard(result, {}).multi_platform


def test_without_a_list_the_keys_do() -> None:
    assert keys(Result(refs={"linux/arm64": Ref(), "docs": Ref()})) == [("linux/arm64", ARM64), ("docs", local())]


def test_without_anything_it_is_for_this_machine_with_the_usual_config() -> None:
    (made,) = heard(Result(), {}).results
    assert (made.platform, made.config) == (local(), b"")


def test_an_answer_in_metadata_only_stays_as_it_is() -> None:
    said = Result(metadata={"result.json": b"{}"})
    assert told(heard(said, {}), (), {}) == said


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (Result(metadata={PLATFORMS: listing("a", "b")}), "multiple platforms without map"),
        (Result(refs={"a": Ref()}, metadata={PLATFORMS: listing("a", "b")}), "failed to find ref for ID b"),
        (Result(metadata={PLATFORMS: listing()}), "invalid empty platforms"),
        (Result(metadata={PLATFORMS: b"null"}), "invalid empty platforms"),
        (Result(metadata={PLATFORMS: b"[1]"}), "cannot be read"),
        (Result(metadata={PLATFORMS: listing("")}), "invalid empty platform key"),
        (Result(metadata={PLATFORMS: b'{"Platforms": [{"ID": "a", "Platform": {}}]}'}), "invalid platform value"),
        (Result(metadata={PLATFORMS: b"["}), "cannot be read"),
        (Result(metadata={CONFIG: b'{"os": "linux"}'}), "must be specified together"),
        (Result(metadata={CONFIG: b"[]"}), "not a JSON object"),
        (Result(metadata={CONFIG: b"null"}), "invalid null image config"),
    ],
)
def test_results_that_cannot_be_meant(result: Result, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        heard(result, {})
