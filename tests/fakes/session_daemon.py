"""A daemon with sessions and nothing else: what a build would ask of its client, a test asks, in `Control.Solve`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from buildengine.api import control_pb2 as pb
from buildengine.api import gateway_pb2 as gateway
from buildengine.api import rpc
from buildengine.api.caps_pb2 import APICap
from buildengine.api.connection import serve_connection
from buildengine.api.received import ReceivedDirectories, open_received
from buildengine.api.session import RemoteSession, remote_session
from buildengine.api.sessions import Sessions
from buildengine.api.worker_pb2 import WorkerRecord
from cache.opened import Cache, open_cache

Build = Callable[[RemoteSession], Awaitable[None]]


class SessionDaemon:
    """`solved` are the outcomes of the builds, in the order in which they ended."""

    def __init__(self, cache: Cache, received: ReceivedDirectories) -> None:
        self.cache = cache
        self.received = received
        self.sessions = Sessions()
        self.build: Build = _nothing
        self._returned: dict[str, trio.Event] = {}

    def session(self, id: str) -> RemoteSession:
        return remote_session(self.sessions, id, cache=self.cache, received=self.received)

    @property
    def services(self) -> rpc.Services:
        methods = {
            "Session": rpc.stream(pb.BytesMessage, pb.BytesMessage, self.sessions.serve),
            "ListWorkers": rpc.unary(pb.ListWorkersRequest, pb.ListWorkersResponse, self._workers),
            "Solve": rpc.unary(pb.SolveRequest, pb.SolveResponse, self._solve),
            "Status": rpc.server_stream(pb.StatusRequest, pb.StatusResponse, self._status),
        }
        bridge = {
            "Ping": rpc.unary(gateway.PingRequest, gateway.PongResponse, self._ping),
            "Solve": rpc.unary(gateway.SolveRequest, gateway.SolveResponse, self._solve_part),
            "Return": rpc.unary(gateway.ReturnRequest, gateway.ReturnResponse, self._return),
        }
        return rpc.merged(
            rpc.service("moby.buildkit.v1.Control", methods), rpc.service("moby.buildkit.v1.frontend.LLBBridge", bridge)
        )

    async def _workers(self, request: pb.ListWorkersRequest, call: Any) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(record=[WorkerRecord(ID="one")])

    async def _solve(self, request: pb.SolveRequest, call: Any) -> pb.SolveResponse:
        """buildctl drives its build through the bridge and returns a result, which is nothing here."""
        await self._return_of(request.Ref).wait()
        await self.build(self.session(request.Session))
        return pb.SolveResponse()

    async def _status(self, request: pb.StatusRequest, call: Any) -> None:
        return

    async def _ping(self, request: gateway.PingRequest, call: Any) -> gateway.PongResponse:
        return gateway.PongResponse(
            FrontendAPICaps=[APICap(ID=id, Enabled=True) for id in ("solve.base", "return")],
            LLBCaps=[APICap(ID=id, Enabled=True) for id in ("file.base", "constraints", "platform")],
        )

    async def _solve_part(self, request: gateway.SolveRequest, call: Any) -> gateway.SolveResponse:
        return gateway.SolveResponse(result=gateway.Result(ref=gateway.Ref()))

    async def _return(self, request: gateway.ReturnRequest, call: Any) -> gateway.ReturnResponse:
        self._return_of(rpc.value(call.metadata, "buildkit-controlapi-buildid")).set()
        return gateway.ReturnResponse()

    def _return_of(self, ref: str) -> trio.Event:
        return self._returned.setdefault(ref, trio.Event())


async def _nothing(session: RemoteSession) -> None:
    pass


@asynccontextmanager
async def session_daemon(root: Path, socket: Path) -> AsyncIterator[SessionDaemon]:
    """A daemon with its store in `root`, listening on the unix socket `socket`, for this block."""
    async with open_cache(root) as cache, open_received(cache) as received:
        daemon = SessionDaemon(cache, received)
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
            await listener.bind(str(socket))
            listener.listen()
            async with trio.open_nursery() as nursery:
                serve = partial(serve_connection, services=daemon.services)
                nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
                yield daemon
                nursery.cancel_scope.cancel()
