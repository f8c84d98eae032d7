"""The LLBBridge service: messages to values and back, and the call to the bridge of the build that it is about.

Which build that is says whoever opens the service: a client's calls name it in their metadata, a frontend in a
container has a connection of its own.

Facts: BuildKit frontend/gateway/gateway.go, frontend/gateway/grpcclient (what clients make of the answers).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from buildengine.api import gateway_pb2 as pb
from buildengine.api import rpc
from buildengine.api.bridge import Bridge, ContainerOrder, Result, SolveOrder
from buildengine.api.capabilities import CONTAINERS, DEPRECATED, GATEWAY, LLB
from buildengine.api.caps_pb2 import APICap
from buildengine.api.daemon import WorkerInfo
from buildengine.api.execprocess import Processes, exec_op
from buildengine.api.gatewaymessages import (
    definition,
    definition_message,
    result_message,
    returned,
    stat_message,
    warning,
)
from buildengine.api.platformmessages import platform_message, platform_of
from buildengine.api.policies import policy
from buildengine.api.rpc import Code, Detail, Metadata, RpcError, ServerCall
from buildengine.api.sourcemeta import answer, details_of, source_of
from buildengine.api.worker_pb2 import WorkerRecord
from buildengine.builder import CacheEntry
from buildengine.errors import UserError
from buildengine.reference import parse_repository
from frontends.gateway import NotAnImage, ResolvedImage
from llb.ops import SourceOp
from llb.pb import ops_pb2

SERVICE = "moby.buildkit.v1.frontend.LLBBridge"
_OCI_LAYOUT = 1  # ResolveImageConfigRequest.ResolverType

Find = Callable[[Metadata], Awaitable[Bridge]]
_Call = ServerCall[Any, Any]


class Gateway:
    """The servicer. `find` gives the bridge that a call with this metadata is for; it raises RpcError."""

    def __init__(self, find: Find, worker: Callable[[], WorkerInfo]) -> None:
        self._find = find
        self._worker = worker

    @property
    def services(self) -> rpc.Services:
        unary = rpc.unary
        return rpc.service(
            SERVICE,
            {
                "Ping": unary(pb.PingRequest, pb.PongResponse, self._ping),
                "Solve": unary(pb.SolveRequest, pb.SolveResponse, self._solve),
                "ResolveImageConfig": unary(
                    pb.ResolveImageConfigRequest, pb.ResolveImageConfigResponse, self._resolve_image
                ),
                "ResolveSourceMeta": unary(
                    pb.ResolveSourceMetaRequest, pb.ResolveSourceMetaResponse, self._resolve_source
                ),
                "ReadFile": unary(pb.ReadFileRequest, pb.ReadFileResponse, self._read_file),
                "ReadDir": unary(pb.ReadDirRequest, pb.ReadDirResponse, self._read_dir),
                "StatFile": unary(pb.StatFileRequest, pb.StatFileResponse, self._stat_file),
                "Evaluate": unary(pb.EvaluateRequest, pb.EvaluateResponse, self._evaluate),
                "Inputs": unary(pb.InputsRequest, pb.InputsResponse, self._inputs),
                "Return": unary(pb.ReturnRequest, pb.ReturnResponse, self._return),
                "Warn": unary(pb.WarnRequest, pb.WarnResponse, self._warn),
                "NewContainer": unary(pb.NewContainerRequest, pb.NewContainerResponse, self._new_container),
                "ReleaseContainer": unary(
                    pb.ReleaseContainerRequest, pb.ReleaseContainerResponse, self._release_container
                ),
                "ExecProcess": rpc.stream(pb.ExecMessage, pb.ExecMessage, self._exec_process),
            },
        )

    async def _bridge(self, call: _Call) -> Bridge:
        try:
            return await self._find(call.metadata)
        except RpcError as error:
            method = call.path.rpartition("/")[2]
            raise RpcError(error.code, f"forwarding {method}: {error.message}", error.details) from error

    async def _ping(self, request: pb.PingRequest, call: _Call) -> pb.PongResponse:
        await self._bridge(call)
        worker = self._worker()
        record = WorkerRecord(ID=worker.id, Labels=worker.labels, platforms=map(platform_message, worker.platforms))
        frontend, llb = _capabilities(containers=worker.containers)
        return pb.PongResponse(FrontendAPICaps=frontend, LLBCaps=llb, Workers=[record])

    async def _solve(self, request: pb.SolveRequest, call: _Call) -> pb.SolveResponse:
        bridge = await self._bridge(call)
        order = solve_order(request)
        result = await bridge.solve(order)
        if result.refs is not None and not request.allowResultReturn:
            raise RpcError(Code.UNKNOWN, "solve did not return default result")
        if request.Final:
            bridge.finish(Result(ref=result.ref, metadata=_exporter_attr(request) | dict(result.metadata)))
        message = result_message(result, refs=request.allowResultArrayRef)
        return pb.SolveResponse(result=message, ref="" if request.allowResultReturn else result.ref.id)

    async def _resolve_image(self, request: pb.ResolveImageConfigRequest, call: _Call) -> pb.ResolveImageConfigResponse:
        bridge = await self._bridge(call)
        source = _image_source(request)
        found = await bridge.resolve_source(
            source,
            platform=platform_of(request.Platform) if request.HasField("Platform") else None,
            mode=request.ResolveMode or "default",
            name=request.LogName,
            policies=tuple(map(policy, request.SourcePolicies)),
        )
        if not isinstance(found, ResolvedImage):
            raise NotAnImage(source.identifier.partition("://")[2], found.source)
        return pb.ResolveImageConfigResponse(Digest=found.digest, Config=found.config, Ref=found.reference)

    async def _resolve_source(self, request: pb.ResolveSourceMetaRequest, call: _Call) -> pb.ResolveSourceMetaResponse:
        bridge = await self._bridge(call)
        if not request.HasField("Source"):
            raise RpcError(Code.INVALID_ARGUMENT, "source is required")
        found = await bridge.resolve_source(
            source_of(request.Source),
            platform=platform_of(request.Platform) if request.HasField("Platform") else None,
            mode=request.ResolveMode or "default",
            name=request.LogName,
            policies=tuple(map(policy, request.SourcePolicies)),
            details=details_of(request),
        )
        return answer(found)

    async def _read_file(self, request: pb.ReadFileRequest, call: _Call) -> pb.ReadFileResponse:
        bridge = await self._bridge(call)
        part = request.Range
        if part.Offset < 0 or part.Length < 0:
            raise RpcError(Code.INVALID_ARGUMENT, "a range does not begin before the file")
        data = await bridge.read_file(
            request.Ref,
            request.FilePath,
            offset=part.Offset,
            length=part.Length if request.HasField("Range") else None,
        )
        return pb.ReadFileResponse(Data=data)

    async def _read_dir(self, request: pb.ReadDirRequest, call: _Call) -> pb.ReadDirResponse:
        bridge = await self._bridge(call)
        found = await bridge.read_dir(request.Ref, request.DirPath, include=request.IncludePattern)
        return pb.ReadDirResponse(entries=map(stat_message, found))

    async def _stat_file(self, request: pb.StatFileRequest, call: _Call) -> pb.StatFileResponse:
        bridge = await self._bridge(call)
        return pb.StatFileResponse(stat=stat_message(await bridge.stat_file(request.Ref, request.Path)))

    async def _evaluate(self, request: pb.EvaluateRequest, call: _Call) -> pb.EvaluateResponse:
        bridge = await self._bridge(call)
        await bridge.evaluate(request.Ref)
        return pb.EvaluateResponse()

    async def _inputs(self, request: pb.InputsRequest, call: _Call) -> pb.InputsResponse:
        bridge = await self._bridge(call)
        inputs = {name: definition_message(definition) for name, definition in bridge.inputs().items()}
        return pb.InputsResponse(Definitions=inputs)

    async def _return(self, request: pb.ReturnRequest, call: _Call) -> pb.ReturnResponse:
        bridge = await self._bridge(call)
        if request.HasField("error"):
            said = request.error
            details = tuple(Detail(type_url=each.type_url, value=each.value) for each in said.details)
            bridge.fail(RpcError(_code(said.code), said.message, details))
        else:
            bridge.finish(returned(request.result))
        return pb.ReturnResponse()

    async def _warn(self, request: pb.WarnRequest, call: _Call) -> pb.WarnResponse:
        bridge = await self._bridge(call)
        await bridge.warn(warning(request))
        return pb.WarnResponse()

    async def _new_container(self, request: pb.NewContainerRequest, call: _Call) -> pb.NewContainerResponse:
        bridge = await self._bridge(call)
        await bridge.new_container(container_order(request))
        return pb.NewContainerResponse()

    async def _release_container(self, request: pb.ReleaseContainerRequest, call: _Call) -> pb.ReleaseContainerResponse:
        bridge = await self._bridge(call)
        await bridge.release_container(request.ContainerID)
        return pb.ReleaseContainerResponse()

    async def _exec_process(self, call: _Call) -> None:
        await Processes(await self._bridge(call), call).run()


# --- what is asked -----------------------------------------------------------------------------------------------


@cache
def _capabilities(*, containers: bool) -> tuple[tuple[APICap, ...], tuple[APICap, ...]]:
    """A frontend's and LLB's: the same for every client, and each asks twice."""
    ours = GATEWAY + CONTAINERS if containers else GATEWAY
    return (
        tuple(APICap(ID=name, Enabled=True, Deprecated=name in DEPRECATED) for name in ours),
        tuple(APICap(ID=name, Enabled=True) for name in LLB),
    )


def solve_order(request: pb.SolveRequest) -> SolveOrder:
    """Raises InvalidDefinition, UserError."""
    has_definition = bool(getattr(request.Definition, "def"))
    if has_definition and request.Frontend:
        raise UserError("cannot solve with both Definition and Frontend specified")
    return SolveOrder(
        definition=definition(request.Definition) if has_definition else None,
        frontend=request.Frontend,
        options=dict(request.FrontendOpt),
        inputs={name: definition(each) for name, each in request.FrontendInputs.items()},
        cache_imports=tuple(CacheEntry(type=each.Type, attrs=dict(each.Attrs)) for each in request.CacheImports),
        policies=tuple(map(policy, request.SourcePolicies)),
        evaluate=request.Evaluate,
    )


def _image_source(request: pb.ResolveImageConfigRequest) -> SourceOp:
    """The image as a source: a question of before there was one for every source. Raises UserError."""
    if request.ResolverType == _OCI_LAYOUT:
        attrs = {"oci.store": request.StoreID, "oci.session": request.SessionID}
        return SourceOp(identifier=f"oci-layout://{request.Ref}", attrs=attrs)
    return SourceOp(identifier=f"docker-image://{parse_repository(request.Ref)}")


def container_order(request: pb.NewContainerRequest) -> ContainerOrder:
    """A mount's reference is an input of the operation, and there are no outputs. Raises InvalidDefinition."""
    message = ops_pb2.ExecOp(
        mounts=request.Mounts,
        network=request.Network,
        meta=ops_pb2.Meta(cwd="/", hostname=request.hostname, extraHosts=request.extraHosts),
    )
    refs: list[str] = []
    for mount in message.mounts:
        mount.input, mount.output = -1, -1
        if mount.resultID:
            mount.input = len(refs)
            refs.append(mount.resultID)
    return ContainerOrder(
        id=request.ContainerID,
        op=exec_op(message),
        refs=tuple(refs),
        platform=platform_of(request.platform) if request.HasField("platform") else None,
    )


def _exporter_attr(request: pb.SolveRequest) -> dict[str, bytes]:
    """Go's map[string][]byte as JSON: values are base64."""
    import base64

    try:
        attributes = json.loads(request.ExporterAttr or b"{}")
        return {str(name): base64.b64decode(value) for name, value in attributes.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"ExporterAttr is not a JSON map of bytes: {error}") from error


def _code(number: int) -> Code:
    return Code(number) if number in set(Code) and number != Code.OK else Code.UNKNOWN


# --- what is answered --------------------------------------------------------------------------------------------
