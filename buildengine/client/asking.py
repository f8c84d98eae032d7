"""A question to a daemon's frontend: a build whose frontend is the client, which asks the other one and has no result.

The answer of a Solve has no room for what a frontend says, so the gateway's calls are needed.

Facts: docker/buildx build/build.go (CallFunc), BuildKit client/build.go, control/gateway/gateway.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from google.rpc.status_pb2 import Status

from buildengine.api import control_pb2 as pb
from buildengine.api import gateway_pb2
from buildengine.api.bridge import BUILD_ID
from buildengine.api.rpc import RpcError
from buildengine.api.statusbytes import encode
from buildengine.client.connection import Connection

_SOLVE = "/moby.buildkit.v1.Control/Solve"
_BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge"


async def ask(connection: Connection, message: pb.SolveRequest) -> tuple[pb.SolveResponse, Mapping[str, bytes]]:
    """How the build ended that `message` begins, and what its frontend has answered. Raises RpcError."""
    question = gateway_pb2.SolveRequest(
        Frontend=message.Frontend,
        FrontendOpt=message.FrontendAttrs,
        allowResultReturn=True,
        allowResultArrayRef=True,
    )
    build = pb.SolveRequest()
    build.CopyFrom(message)
    build.ClearField("Frontend")
    build.Internal = True  # it is no build for the history
    solving = asyncio.create_task(connection.unary(_SOLVE, build, pb.SolveResponse))
    answering = asyncio.create_task(_answer(connection, message.Ref, question))
    try:
        return await solving, await answering
    finally:
        for task in (solving, answering):
            task.cancel()
        await asyncio.gather(solving, answering, return_exceptions=True)


async def _answer(connection: Connection, ref: str, question: gateway_pb2.SolveRequest) -> Mapping[str, bytes]:
    """Whatever comes of it, the build ends with it."""
    build = ((BUILD_ID, ref),)
    try:
        answer = await connection.unary(f"{_BRIDGE}/Solve", question, gateway_pb2.SolveResponse, build)
    except RpcError as error:
        failed = gateway_pb2.ReturnRequest(error=Status.FromString(encode(error)))
        with suppress(RpcError):  # there is no build any more
            await connection.unary(f"{_BRIDGE}/Return", failed, gateway_pb2.ReturnResponse, build)
        raise
    nothing = gateway_pb2.ReturnRequest(result=gateway_pb2.Result())
    await connection.unary(f"{_BRIDGE}/Return", nothing, gateway_pb2.ReturnResponse, build)
    return dict(answer.result.metadata)
