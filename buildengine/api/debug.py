"""pybuild.v1.Debug: whether the store is sound, and for which platforms steps run. For `pybuild --addr`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from buildengine.api import debug_pb2 as pb
from buildengine.api import rpc
from buildengine.api.platformmessages import platform_message
from buildengine.api.rpc import ServerCall
from buildengine.builder import RunnablePlatform, StoreCheck

SERVICE = "pybuild.v1.Debug"


class Looked(Protocol):
    """What may be looked at."""

    async def verify_store(self) -> StoreCheck: ...

    async def runnable_platforms(self) -> Sequence[RunnablePlatform]: ...


class Debug:
    """The servicer."""

    def __init__(self, looked: Looked) -> None:
        self._looked = looked

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            SERVICE,
            {
                "VerifyStore": rpc.unary(pb.VerifyStoreRequest, pb.VerifyStoreResponse, self._verify_store),
                "Platforms": rpc.unary(pb.PlatformsRequest, pb.PlatformsResponse, self._platforms),
            },
        )

    async def _verify_store(
        self, request: pb.VerifyStoreRequest, call: ServerCall[pb.VerifyStoreRequest, pb.VerifyStoreResponse]
    ) -> pb.VerifyStoreResponse:
        check = await self._looked.verify_store()
        damages = [pb.Damage(where=damage.where, problem=damage.problem) for damage in check.damages]
        return pb.VerifyStoreResponse(root=check.root, damages=damages)

    async def _platforms(
        self, request: pb.PlatformsRequest, call: ServerCall[pb.PlatformsRequest, pb.PlatformsResponse]
    ) -> pb.PlatformsResponse:
        return pb.PlatformsResponse(
            platforms=[
                pb.RunnablePlatform(
                    platform=platform_message(each.platform), how=each.how, reason=each.reason, hint=each.hint
                )
                for each in await self._looked.runnable_platforms()
            ]
        )
