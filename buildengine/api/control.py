"""The Control service: what `buildctl`, `docker buildx` and BuildKit's client libraries ask of a daemon.

Facts: BuildKit control/control.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import inf

import trio

from buildengine.api import control_pb2 as pb
from buildengine.api import convert, records, rpc, worker_pb2
from buildengine.api.daemon import BuildOrder, Daemon, WorkerInfo
from buildengine.api.rpc import ServerCall
from buildengine.api.sessions import Sessions
from buildengine.builder import BuildRequest, UsageInfo
from buildengine.filters import parse
from buildengine.limits import PATTERNS, offload
from llb.definition import Definition
from llb.pb import ops_pb2

SERVICE = "moby.buildkit.v1.Control"
_NOW = "buildkit-current-timestamp"  # api/services/control: a client corrects the times it shows by it
_CONFIG = "containerimage.config"  # exptypes.ExporterImageConfigKey
_NANOSECONDS = 10**9


class Control:
    """The servicer: messages in, the daemon's answers out."""

    def __init__(self, daemon: Daemon, sessions: Sessions, *, clock: Callable[[], float] = time.time) -> None:
        self._daemon = daemon
        self._sessions = sessions
        self._clock = clock

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            SERVICE,
            {
                "DiskUsage": rpc.unary(pb.DiskUsageRequest, pb.DiskUsageResponse, self._disk_usage),
                "Prune": rpc.server_stream(pb.PruneRequest, pb.UsageRecord, self._prune),
                "Solve": rpc.unary(pb.SolveRequest, pb.SolveResponse, self._solve),
                "Status": rpc.server_stream(pb.StatusRequest, pb.StatusResponse, self._status),
                "Session": rpc.stream(pb.BytesMessage, pb.BytesMessage, self._sessions.serve),
                "ListWorkers": rpc.unary(pb.ListWorkersRequest, pb.ListWorkersResponse, self._list_workers),
                "Info": rpc.unary(pb.InfoRequest, pb.InfoResponse, self._info),
                "ListenBuildHistory": rpc.server_stream(
                    pb.BuildHistoryRequest, pb.BuildHistoryEvent, self._listen_build_history
                ),
                "UpdateBuildHistory": rpc.unary(
                    pb.UpdateBuildHistoryRequest, pb.UpdateBuildHistoryResponse, self._update_build_history
                ),
            },
        )

    async def _disk_usage(
        self, request: pb.DiskUsageRequest, call: ServerCall[pb.DiskUsageRequest, pb.DiskUsageResponse]
    ) -> pb.DiskUsageResponse:
        infos = await self._daemon.disk_usage(tuple(request.filter), unused_for=request.ageLimit / _NANOSECONDS)
        return pb.DiskUsageResponse(record=map(convert.usage_record, infos))

    async def _prune(self, request: pb.PruneRequest, call: ServerCall[pb.PruneRequest, pb.UsageRecord]) -> None:
        """Deleting does not wait for a client that reads slowly."""
        gone, told = trio.open_memory_channel[UsageInfo](inf)

        async def prune() -> None:
            with gone:
                await self._daemon.prune(convert.prune_policy(request), gone.send_nowait)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(prune)
            async for info in told:
                await call.send(convert.usage_record(info))

    async def _solve(
        self, request: pb.SolveRequest, call: ServerCall[pb.SolveRequest, pb.SolveResponse]
    ) -> pb.SolveResponse:
        order = replace(build_order(request), traceparent=rpc.value(call.metadata, "traceparent"))
        return pb.SolveResponse(ExporterResponse=await self._daemon.solve(order))

    async def _status(self, request: pb.StatusRequest, call: ServerCall[pb.StatusRequest, pb.StatusResponse]) -> None:
        await call.send_initial_metadata(self._now())
        async with self._daemon.status(request.Ref) as responses:
            async for response in responses:
                await call.send(response)

    async def _list_workers(
        self, request: pb.ListWorkersRequest, call: ServerCall[pb.ListWorkersRequest, pb.ListWorkersResponse]
    ) -> pb.ListWorkersResponse:
        worker = self._daemon.worker()
        if request.filter and not await offload(_selects, tuple(request.filter), worker, limiter=PATTERNS):
            return pb.ListWorkersResponse()
        record = convert.worker_record(
            id=worker.id,
            labels=worker.labels,
            platforms=worker.platforms,
            policies=worker.policies,
            version=self._version(),
        )
        return pb.ListWorkersResponse(record=[record])

    async def _info(
        self, request: pb.InfoRequest, call: ServerCall[pb.InfoRequest, pb.InfoResponse]
    ) -> pb.InfoResponse:
        return pb.InfoResponse(buildkitVersion=self._version())

    async def _listen_build_history(
        self, request: pb.BuildHistoryRequest, call: ServerCall[pb.BuildHistoryRequest, pb.BuildHistoryEvent]
    ) -> None:
        await call.send_initial_metadata(self._now())
        async with self._daemon.history(records.query(request)) as events:
            async for event in events:
                await call.send(records.event_message(event))

    async def _update_build_history(
        self,
        request: pb.UpdateBuildHistoryRequest,
        call: ServerCall[pb.UpdateBuildHistoryRequest, pb.UpdateBuildHistoryResponse],
    ) -> pb.UpdateBuildHistoryResponse:
        if request.Delete:
            await self._daemon.forget(request.Ref)
        elif request.Finalize:
            await self._daemon.finalize(request.Ref)
        else:
            await self._daemon.pin(request.Ref, pinned=request.Pinned)
        return pb.UpdateBuildHistoryResponse()

    def _version(self) -> worker_pb2.BuildkitVersion:
        version = self._daemon.version
        return worker_pb2.BuildkitVersion(package=version.package, version=version.version, revision=version.revision)

    def _now(self) -> rpc.Metadata:
        now = datetime.fromtimestamp(self._clock(), UTC)
        return ((_NOW, now.isoformat(timespec="microseconds").replace("+00:00", "Z")),)


def build_order(request: pb.SolveRequest) -> BuildOrder:
    """Raises UserError."""
    asked, config = convert.build_request(request), b""
    if request.HasField("Definition"):
        asked, config = _without_config(asked)
    return BuildOrder(
        request=asked,
        session=request.Session,
        definition=_definition(request.Definition) if request.HasField("Definition") else None,
        image_config=config,
        inputs={name: _definition(each) for name, each in request.FrontendInputs.items()},
        internal=request.Internal,
        session_exporter=request.EnableSessionExporter,
        source_policy_session=request.SourcePolicySession,
    )


def _without_config(asked: BuildRequest) -> tuple[BuildRequest, bytes]:
    """The image config, which a client that has no frontend gives to an exporter, is not the exporter's."""
    configs = [export.attrs[_CONFIG] for export in asked.exports if _CONFIG in export.attrs]
    plain = [{name: value for name, value in export.attrs.items() if name != _CONFIG} for export in asked.exports]
    exports = tuple(replace(export, attrs=attrs) for export, attrs in zip(asked.exports, plain, strict=True))
    return replace(asked, exports=exports), configs[0].encode() if configs else b""


def _definition(message: ops_pb2.Definition) -> Definition:
    return Definition.from_bytes(message.SerializeToString())


def _selects(filters: Sequence[str], worker: WorkerInfo) -> bool:
    def look(path: tuple[str, ...]) -> str | None:
        if path[0] == "labels":
            return worker.labels.get(".".join(path[1:]))
        return worker.id if path == ("id",) else None

    return parse(filters)(look)
