"""A frontend in a process of its own, without the process: what it calls is answered, and how its end counts."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from buildengine.api import gateway_pb2 as pb
from buildengine.api import rpc
from buildengine.api.answering import answer
from buildengine.api.gateway import SERVICE
from buildengine.api.rpc import Code, RpcError
from buildengine.daemon.bridge import Bridge
from buildengine.daemon.hosted import PATIENCE, Carry, hosted
from buildengine.errors import BuildError, ExecFailed
from frontends.gateway import FrontendResult
from frontends.testing import FakeGateway
from llb.pb import ops_pb2
from llb.sources import local as directory
from tests.fakes.bridges import WORKER
from tests.fakes.gateway import request

CONTEXT = directory("context").marshal()
FAILED = ExecFailed("exit code: 1", argv=("/run",), exit_code=1)


async def built(carry: Carry, on: FakeGateway | None = None) -> FrontendResult:
    return await hosted(on or FakeGateway(), request(), lambda: WORKER, carry)


async def returned(services: rpc.Services, bridge: Bridge) -> None:
    """What a frontend does that gives the context back."""
    definition = ops_pb2.Definition.FromString(CONTEXT.to_bytes())
    asked = pb.SolveRequest(Definition=definition, allowResultReturn=True, allowResultArrayRef=True)
    solved = await answer(services, f"/{SERVICE}/Solve", asked.SerializeToString())
    result = pb.SolveResponse.FromString(solved).result
    await answer(services, f"/{SERVICE}/Return", pb.ReturnRequest(result=result).SerializeToString())


async def test_what_it_returns_is_the_result() -> None:
    on = FakeGateway()
    assert [made.definition for made in (await built(returned, on)).results] == [CONTEXT]
    assert on.solved == [CONTEXT]


async def test_it_is_told_of_the_machine() -> None:
    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        pong = pb.PongResponse.FromString(await answer(services, f"/{SERVICE}/Ping", b""))
        assert [worker.ID for worker in pong.Workers] == [WORKER.id]
        await returned(services, bridge)

    await built(carry)


async def test_an_end_without_a_result() -> None:
    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(BuildError, match="no result for incomplete build"):
        await built(carry)


async def test_a_failure_counts_more_than_a_result() -> None:
    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        await returned(services, bridge)
        raise FAILED

    with pytest.raises(ExecFailed) as caught:
        await built(carry)
    assert caught.value is FAILED


async def test_what_it_says_of_an_error_counts_more_than_its_failure() -> None:
    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        said = pb.ReturnRequest()
        said.error.code, said.error.message = Code.NOT_FOUND, "no such thing"
        await answer(services, f"/{SERVICE}/Return", said.SerializeToString())
        raise FAILED

    with pytest.raises(BuildError, match="no such thing"):
        await built(carry)


async def test_one_that_does_not_end_once_it_has_returned(autojump_clock: trio.testing.MockClock) -> None:
    ended = trio.Event()

    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        await returned(services, bridge)
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    assert len((await built(carry)).results) == 1
    assert ended.is_set()
    assert trio.current_time() >= PATIENCE


async def test_a_call_after_the_end() -> None:
    kept: list[rpc.Services] = []

    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        kept.append(services)
        await returned(services, bridge)

    await built(carry)
    with pytest.raises(RpcError) as caught:
        await answer(kept[0], f"/{SERVICE}/ReadFile", pb.ReadFileRequest(Ref="x", FilePath="y").SerializeToString())
    assert caught.value.code is Code.CANCELLED


async def test_calls_that_are_none() -> None:
    async def carry(services: rpc.Services, bridge: Bridge) -> None:
        for path, data, code in (
            (f"/{SERVICE}/Dream", b"", Code.UNIMPLEMENTED),
            (f"/{SERVICE}/Solve", b"\xff", Code.INTERNAL),
        ):
            with pytest.raises(RpcError) as caught:
                await answer(services, path, data)
            assert caught.value.code is code
        await returned(services, bridge)

    await built(carry)
