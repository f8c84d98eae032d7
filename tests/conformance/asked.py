"""The Dockerfile frontend of a daemon, asked through the gateway what it makes of a file: definitions and configs.

The test is the frontend of a build (it solves with `dockerfile.v0` and returns nothing), so nothing is executed but
the loading of the Dockerfile. Facts: BuildKit frontend/gateway/gateway.go (Solve gives the definition of each result).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from buildengine.api import control_pb2, gateway_pb2
from buildengine.api.bridge import BUILD_ID
from buildengine.api.gateway import SERVICE
from buildengine.builder import BuildRequest
from buildengine.client.connect import connect
from buildengine.client.session import offer, session
from llb.definition import Definition
from llb.pb import ops_pb2
from tests.fakes.daemon import grpc

_LARGEST = 64 << 20  # bytes of one answer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`definitions` by platform, under "" for a result without one; `metadata` has the image configs."""

    definitions: Mapping[str, Definition]
    metadata: Mapping[str, bytes]


def ask(address: str, context: Path, options: Mapping[str, str], locals: Mapping[str, Path]) -> Answer:
    """What the frontend of the daemon at `address` (unix://...) says. Raises grpc.RpcError.

    The session has the same id for the same context: operations carry it.
    """
    return asyncio.run(_ask(address, context, options, locals))


async def _ask(address: str, context: Path, options: Mapping[str, str], locals: Mapping[str, Path]) -> Answer:
    ref = secrets.token_hex(8)
    directories = {"context": context, "dockerfile": context, **locals}
    offered = offer(BuildRequest(ref=ref, directories=directories), {}, logins=None, environment={}, stdout=1)
    limits = [("grpc.max_receive_message_length", _LARGEST), ("grpc.max_metadata_size", 1 << 20)]
    async with (
        connect(address) as daemon,
        session(daemon, offered, "key", hashlib.sha256(bytes(context)).hexdigest()[:32]) as id,
        grpc.aio.insecure_channel(address.replace("unix://", "unix:"), options=limits) as channel,
    ):
        request = control_pb2.SolveRequest(Ref=ref, Session=id)
        solving = asyncio.create_task(
            daemon.unary("/moby.buildkit.v1.Control/Solve", request, control_pb2.SolveResponse)
        )
        try:
            return await _converted(channel, ref, options)
        finally:
            await _end(channel, ref)
            await asyncio.gather(solving, return_exceptions=True)


async def _converted(channel: grpc.aio.Channel, ref: str, options: Mapping[str, str]) -> Answer:
    """With a command line no frontend image is looked for, whatever the file's syntax directive says."""
    request = gateway_pb2.SolveRequest(
        Frontend="dockerfile.v0",
        FrontendOpt={"cmdline": "", **options},
        allowResultReturn=True,
        allowResultArrayRef=True,
    )
    call = channel.unary_unary(
        f"/{SERVICE}/Solve",
        request_serializer=gateway_pb2.SolveRequest.SerializeToString,
        response_deserializer=gateway_pb2.SolveResponse.FromString,
    )
    answer = await call(request, metadata=((BUILD_ID, ref),), wait_for_ready=True)
    refs = dict(answer.result.refs.refs) if answer.result.HasField("refs") else {"": answer.result.ref}
    found = {platform: _definition(getattr(each, "def")) for platform, each in refs.items()}
    return Answer(definitions=found, metadata=dict(answer.result.metadata))


def _definition(message: ops_pb2.Definition) -> Definition:
    return Definition.from_bytes(message.SerializeToString())


async def _end(channel: grpc.aio.Channel, ref: str) -> None:
    """Return nothing, which ends the build."""
    call = channel.unary_unary(
        f"/{SERVICE}/Return",
        request_serializer=gateway_pb2.ReturnRequest.SerializeToString,
        response_deserializer=gateway_pb2.ReturnResponse.FromString,
    )
    await call(gateway_pb2.ReturnRequest(result=gateway_pb2.Result()), metadata=((BUILD_ID, ref),))
