"""grpc.health.v1: whether a service is to be had, asked once or watched.

Source: grpc/doc/health-checking.md. The empty name stands for the whole of the server.
"""

from __future__ import annotations

import trio

from buildengine.api import rpc
from buildengine.api.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from buildengine.api.rpc import Code, RpcError, ServerCall

SERVICE = "grpc.health.v1.Health"


class Health:
    """The status of each service by its name; at first all that are named serve, and the server as a whole."""

    def __init__(self, *services: str) -> None:
        self._serving = dict.fromkeys(("", *services), True)
        self._changed = trio.Event()

    def change(self, service: str, *, serving: bool) -> None:
        """Whoever watches is told."""
        self._serving[service] = serving
        self._changed.set()
        self._changed = trio.Event()

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            SERVICE,
            {
                "Check": rpc.unary(HealthCheckRequest, HealthCheckResponse, self._check),
                "List": rpc.unary(HealthListRequest, HealthListResponse, self._list),
                "Watch": rpc.server_stream(HealthCheckRequest, HealthCheckResponse, self._watch),
            },
        )

    async def _check(
        self, request: HealthCheckRequest, call: ServerCall[HealthCheckRequest, HealthCheckResponse]
    ) -> HealthCheckResponse:
        if request.service not in self._serving:
            raise RpcError(Code.NOT_FOUND, f"unknown service {request.service}")
        return self._answer(request.service)

    async def _list(
        self, request: HealthListRequest, call: ServerCall[HealthListRequest, HealthListResponse]
    ) -> HealthListResponse:
        return HealthListResponse(statuses={name: self._answer(name) for name in self._serving})

    async def _watch(
        self, request: HealthCheckRequest, call: ServerCall[HealthCheckRequest, HealthCheckResponse]
    ) -> None:
        """Until the caller has enough."""
        told = None
        while True:
            changed, answer = self._changed, self._answer(request.service)
            if answer != told:
                await call.send(answer)
                told = answer
            await changed.wait()

    def _answer(self, service: str) -> HealthCheckResponse:
        match self._serving.get(service):
            case True:
                return HealthCheckResponse(status=HealthCheckResponse.SERVING)
            case False:
                return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING)
            case _:
                return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
