"""Between the messages of the Control service and the values of the engine, both ways. No I/O.

Times are seconds since the epoch here and Timestamps there; durations seconds here and nanoseconds there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from buildengine import platform as platforms
from buildengine.api import control_pb2, policies, worker_pb2
from buildengine.api.platformmessages import platform_message
from buildengine.builder import BuildRequest, CacheEntry, Export, PrunePolicy, UsageInfo
from buildengine.errors import Location, UserError
from buildengine.events import Event, LogEvent, Outcome, ProgressGroup, StatusEvent, VertexEvent, WarningEvent
from buildengine.platform import Platform
from llb.codec.ranges import range_message, source_range
from llb.pb import ops_pb2

_NANOSECONDS = 10**9
_LOGS_IN_ONE = 1 << 20  # bytes of output in one StatusResponse: api/services/control, and well below a message's limit


def timestamp(seconds: float) -> Timestamp:
    whole, nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    return Timestamp(seconds=whole, nanos=nanos)


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / _NANOSECONDS


# --- builds ------------------------------------------------------------------------------------------------------


def build_request(message: control_pb2.SolveRequest) -> BuildRequest:
    """What a Solve asks for. Its definition and inputs are not of the request: see `Solve`'s caller.

    `platform` among the attributes says for which platforms, as for every frontend. Raises UserError.
    """
    if not message.Ref:
        raise UserError("a build needs a ref")
    return BuildRequest(
        ref=message.Ref,
        frontend=message.Frontend,
        options=dict(message.FrontendAttrs),
        platforms=_platforms(message.FrontendAttrs.get("platform", "")),
        exports=tuple(Export(type=e.Type, attrs=dict(e.Attrs)) for e in exporters(message)),
        entitlements=frozenset(message.Entitlements),
        source_policy=policies.policy(message.SourcePolicy) if message.HasField("SourcePolicy") else None,
        cache_imports=_cache_imports(message.Cache),
        cache_exports=_cache_exports(message.Cache),
    )


def _cache_entries(messages: Iterable[control_pb2.CacheOptionsEntry]) -> tuple[CacheEntry, ...]:
    return tuple(CacheEntry(type=each.Type, attrs=dict(each.Attrs)) for each in messages)


def _cache_imports(options: control_pb2.CacheOptions) -> tuple[CacheEntry, ...]:
    """Clients of before v0.4 know registries only."""
    old = [CacheEntry(type="registry", attrs={"ref": ref}) for ref in options.ImportRefsDeprecated]
    return (*_cache_entries(options.Imports), *old)


def _cache_exports(options: control_pb2.CacheOptions) -> tuple[CacheEntry, ...]:
    exports = _cache_entries(options.Exports)
    if not options.ExportRefDeprecated:
        return exports
    attrs = {**options.ExportAttrsDeprecated, "ref": options.ExportRefDeprecated}
    return (*exports, CacheEntry(type="registry", attrs=attrs))


def exporters(message: control_pb2.SolveRequest) -> Sequence[control_pb2.Exporter]:
    """Clients of before v0.13 know one only, and newer ones repeat it in its old place."""
    if message.Exporters or not message.ExporterDeprecated:
        return list(message.Exporters)
    attrs = message.ExporterAttrsDeprecated
    return [control_pb2.Exporter(Type=message.ExporterDeprecated, Attrs=dict(attrs))]


def solve_request(request: BuildRequest, *, session: str) -> control_pb2.SolveRequest:
    """The other way, for a client: what `request` asks for but for what its session answers."""
    attributes = dict(request.options)
    if request.cache_imports and request.frontend:  # it is the frontend that asks for them
        told = [{"Type": each.type, "Attrs": dict(each.attrs)} for each in request.cache_imports]
        attributes["cache-imports"] = json.dumps(told)
    if request.platforms:
        attributes["platform"] = ",".join(map(str, request.platforms))
    message = control_pb2.SolveRequest(
        Ref=request.ref,
        Session=session,
        Frontend=request.frontend,
        FrontendAttrs=attributes,
        Exporters=[control_pb2.Exporter(Type=export.type, Attrs=export.attrs) for export in request.exports],
        Entitlements=sorted(request.entitlements),
        Cache=control_pb2.CacheOptions(
            Imports=map(_cache_message, request.cache_imports), Exports=map(_cache_message, request.cache_exports)
        ),
    )
    if request.source_policy is not None:
        message.SourcePolicy.CopyFrom(policies.policy_message(request.source_policy))
    for first in request.exports[:1]:  # daemons of before v0.13 look here
        message.ExporterDeprecated = first.type
        message.ExporterAttrsDeprecated.update(first.attrs)
    return message


def _cache_message(entry: CacheEntry) -> control_pb2.CacheOptionsEntry:
    return control_pb2.CacheOptionsEntry(Type=entry.type, Attrs=entry.attrs)


def _platforms(text: str) -> tuple[Platform, ...]:
    return tuple(dict.fromkeys(platforms.parse(each.strip()) for each in text.split(",") if each.strip()))


# --- progress ----------------------------------------------------------------------------------------------------


def status_responses(told: Iterable[Event]) -> Iterator[control_pb2.StatusResponse]:
    """The events in their order, in as few messages as may be. BuildKit's stream knows no explanations."""
    response, size = control_pb2.StatusResponse(), 0
    for event in told:
        if isinstance(event, LogEvent):
            for piece in _pieces(event):
                if size + len(piece.data) > _LOGS_IN_ONE and size:
                    yield response
                    response, size = control_pb2.StatusResponse(), 0
                _add(response, piece)
                size += len(piece.data)
        else:
            _add(response, event)
    if response.ByteSize():
        yield response


def _pieces(event: LogEvent) -> Iterator[LogEvent]:
    for start in range(0, max(len(event.data), 1), _LOGS_IN_ONE):
        yield replace(event, data=event.data[start : start + _LOGS_IN_ONE])


def _add(response: control_pb2.StatusResponse, event: Event) -> None:
    if isinstance(event, VertexEvent):
        response.vertexes.append(_vertex(event))
    elif isinstance(event, StatusEvent):
        response.statuses.append(_status(event))
    elif isinstance(event, LogEvent):
        response.logs.append(
            control_pb2.VertexLog(
                vertex=event.vertex, timestamp=timestamp(event.timestamp), stream=event.stream, msg=event.data
            )
        )
    elif isinstance(event, WarningEvent):
        response.warnings.append(_warning(event))


def _vertex(event: VertexEvent) -> control_pb2.Vertex:
    error = event.error
    if event.outcome is Outcome.CANCELED and not error.endswith("context canceled"):
        error = f"{error}: context canceled" if error else "context canceled"  # how clients tell it from a failure
    group = event.group
    return control_pb2.Vertex(
        digest=event.digest,
        inputs=event.inputs,
        name=event.name,
        cached=event.outcome is Outcome.CACHED,
        started=_optional(event.started),
        completed=_optional(event.completed),
        error=error,
        progressGroup=ops_pb2.ProgressGroup(id=group.id, name=group.name, weak=group.weak) if group else None,
    )


def _status(event: StatusEvent) -> control_pb2.VertexStatus:
    return control_pb2.VertexStatus(
        ID=event.id,
        vertex=event.vertex,
        name=event.name,
        current=event.current,
        total=event.total,
        timestamp=timestamp(event.timestamp),
        started=_optional(event.started),
        completed=_optional(event.completed),
    )


def _warning(event: WarningEvent) -> control_pb2.VertexWarning:
    location = event.location
    return control_pb2.VertexWarning(
        vertex=event.vertex,
        level=event.level,
        short=event.message.encode(),
        detail=[line.encode() for line in event.detail],
        url=event.url,
        info=ops_pb2.SourceInfo(filename=location.filename, data=location.text) if location else None,
        ranges=map(range_message, location.ranges if location else ()),
    )


def _optional(moment: float | None) -> Timestamp | None:
    return None if moment is None else timestamp(moment)


# --- the store ---------------------------------------------------------------------------------------------------


def usage_record(info: UsageInfo) -> control_pb2.UsageRecord:
    return control_pb2.UsageRecord(
        ID=info.id,
        Mutable=info.mutable,
        InUse=info.in_use,
        Size=info.size,
        Parents=info.parents,
        CreatedAt=timestamp(info.created),
        LastUsedAt=_optional(info.last_used),
        UsageCount=info.usage_count,
        Description=info.description,
        RecordType=info.kind,
        Shared=info.shared,
    )


def usage_info(record: control_pb2.UsageRecord) -> UsageInfo:
    return UsageInfo(
        id=record.ID,
        parents=tuple(record.Parents) or ((record.Parent,) if record.Parent else ()),
        kind=record.RecordType,
        description=record.Description,
        size=record.Size,
        mutable=record.Mutable,
        in_use=record.InUse,
        shared=record.Shared,
        created=seconds(record.CreatedAt),
        last_used=seconds(record.LastUsedAt) if record.HasField("LastUsedAt") else None,
        usage_count=record.UsageCount,
    )


def prune_policy(request: control_pb2.PruneRequest) -> PrunePolicy:
    return PrunePolicy(
        all=request.all,
        filters=tuple(request.filter),
        keep_duration=request.keepDuration / _NANOSECONDS,
        reserved_space=request.reservedSpace,
        max_used_space=request.maxUsedSpace,
        min_free_space=request.minFreeSpace,
    )


def prune_request(policy: PrunePolicy) -> control_pb2.PruneRequest:
    return control_pb2.PruneRequest(
        all=policy.all,
        filter=policy.filters,
        keepDuration=round(policy.keep_duration * _NANOSECONDS),
        reservedSpace=policy.reserved_space,
        maxUsedSpace=policy.max_used_space,
        minFreeSpace=policy.min_free_space,
    )


# --- workers -----------------------------------------------------------------------------------------------------


def worker_record(
    *,
    id: str,
    labels: Mapping[str, str],
    platforms: Iterable[Platform],
    policies: Iterable[PrunePolicy],
    version: worker_pb2.BuildkitVersion,
) -> worker_pb2.WorkerRecord:
    return worker_pb2.WorkerRecord(
        ID=id,
        Labels=dict(labels),
        platforms=[platform_message(each) for each in platforms],
        GCPolicy=[
            worker_pb2.GCPolicy(
                all=policy.all,
                filters=policy.filters,
                keepDuration=round(policy.keep_duration * _NANOSECONDS),
                reservedSpace=policy.reserved_space,
                maxUsedSpace=policy.max_used_space,
                minFreeSpace=policy.min_free_space,
            )
            for policy in policies
        ],
        BuildkitVersion=version,
    )


def events(response: control_pb2.StatusResponse) -> Iterator[Event]:
    """The events of a message, for a client: a vertex begins before what is told of it, and ends after that."""
    vertices = [_vertex_event(vertex) for vertex in response.vertexes]
    yield from (vertex for vertex in vertices if vertex.completed is None)
    for status in response.statuses:
        yield StatusEvent(
            id=status.ID,
            vertex=status.vertex,
            name=status.name,
            current=status.current,
            total=status.total,
            timestamp=seconds(status.timestamp),
            started=seconds(status.started) if status.HasField("started") else None,
            completed=seconds(status.completed) if status.HasField("completed") else None,
        )
    for log in response.logs:
        yield LogEvent(vertex=log.vertex, stream=log.stream, data=log.msg, timestamp=seconds(log.timestamp))
    yield from (vertex for vertex in vertices if vertex.completed is not None)
    for warning in response.warnings:
        yield _warning_event(warning)


def _vertex_event(vertex: control_pb2.Vertex) -> VertexEvent:
    group = vertex.progressGroup
    return VertexEvent(
        digest=vertex.digest,
        name=vertex.name,
        inputs=tuple(vertex.inputs),
        started=seconds(vertex.started) if vertex.HasField("started") else None,
        completed=seconds(vertex.completed) if vertex.HasField("completed") else None,
        outcome=_outcome(vertex),
        error=vertex.error,
        group=ProgressGroup(id=group.id, name=group.name, weak=group.weak) if group.id else None,
    )


def _outcome(vertex: control_pb2.Vertex) -> Outcome:
    if vertex.cached:
        return Outcome.CACHED
    if not vertex.HasField("completed"):
        return Outcome.RUNNING
    if vertex.error:
        return Outcome.CANCELED if vertex.error.endswith("context canceled") else Outcome.FAILED
    return Outcome.DONE


def _warning_event(warning: control_pb2.VertexWarning) -> WarningEvent:
    ranges = tuple(map(source_range, warning.ranges))
    info = warning.info
    return WarningEvent(
        vertex=warning.vertex,
        message=warning.short.decode("utf-8", "replace"),
        level=warning.level,
        detail=tuple(line.decode("utf-8", "replace") for line in warning.detail),
        url=warning.url,
        location=Location(filename=info.filename, text=info.data, ranges=ranges) if warning.HasField("info") else None,
    )
