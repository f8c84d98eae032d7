"""A look at a daemon's store and host: pybuildd's own service beside BuildKit's API. Raises RpcError."""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.api import debug_pb2 as pb
from buildengine.api.platformmessages import platform_as_sent
from buildengine.builder import Damage, RunnablePlatform, StoreCheck
from buildengine.client.connection import Connection

_SERVICE = "/pybuild.v1.Debug"


async def verify_store(connection: Connection) -> StoreCheck:
    answer = await connection.unary(f"{_SERVICE}/VerifyStore", pb.VerifyStoreRequest(), pb.VerifyStoreResponse)
    damages = tuple(Damage(where=each.where, problem=each.problem) for each in answer.damages)
    return StoreCheck(root=answer.root, damages=damages)


async def platforms(connection: Connection) -> Sequence[RunnablePlatform]:
    answer = await connection.unary(f"{_SERVICE}/Platforms", pb.PlatformsRequest(), pb.PlatformsResponse)
    return [
        RunnablePlatform(platform=platform_as_sent(each.platform), how=each.how, reason=each.reason, hint=each.hint)
        for each in answer.platforms
    ]
