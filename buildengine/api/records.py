"""Records of the build history as messages, and as the bytes in which they are kept. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from buildengine.api import control_pb2, statusbytes
from buildengine.api.control_pb2 import BuildHistoryEvent, BuildHistoryRecord, BuildResultInfo, Descriptor
from buildengine.api.convert import seconds, timestamp
from buildengine.api.rpc import Code, RpcError
from buildengine.api.status import from_rpc
from buildengine.builder import Export
from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.history import Blob, BuildRecord, Failure, Happening, HistoryEvent, HistoryQuery, ResultInfo, Steps

_TYPES: Mapping[Happening, control_pb2.BuildHistoryEventType.ValueType] = {
    Happening.STARTED: control_pb2.STARTED,
    Happening.COMPLETE: control_pb2.COMPLETE,
    Happening.DELETED: control_pb2.DELETED,
}


def encode(record: BuildRecord) -> bytes:
    return record_message(record).SerializeToString()


def decode(data: bytes) -> BuildRecord:
    return record(BuildHistoryRecord.FromString(data))


def failure_of(record: BuildRecord, document: Callable[[Digest], bytes | None]) -> BuildError | None:
    """Why the build of `record` failed, as far as it is still known."""
    failure = record.failure
    if failure is None:
        return None
    told = RpcError(Code(failure.code), failure.message)
    data = document(failure.blob.digest) if failure.blob is not None else None
    if data is not None:
        with suppress(DecodeError, ValueError):
            told = statusbytes.decode(data)
    return from_rpc(told)


def query(request: control_pb2.BuildHistoryRequest) -> HistoryQuery:
    return HistoryQuery(
        ref=request.Ref,
        active_only=request.ActiveOnly,
        early_exit=request.EarlyExit,
        filters=tuple(request.Filter),
        limit=request.Limit,
    )


def event_message(event: HistoryEvent) -> BuildHistoryEvent:
    """Of what is deleted only the ref is told."""
    gone = event.happening is Happening.DELETED
    record = BuildHistoryRecord(Ref=event.record.ref) if gone else record_message(event.record)
    return BuildHistoryEvent(type=_TYPES[event.happening], record=record)


def record_message(record: BuildRecord) -> BuildHistoryRecord:
    failure, steps = record.failure, record.steps
    return BuildHistoryRecord(
        Ref=record.ref,
        Frontend=record.frontend,
        FrontendAttrs=record.options,
        Exporters=[control_pb2.Exporter(Type=export.type, Attrs=export.attrs) for export in record.exports],
        error=Status(code=failure.code, message=failure.message) if failure else None,
        externalError=_descriptor(failure.blob) if failure else None,
        CreatedAt=timestamp(record.created),
        CompletedAt=None if record.completed is None else timestamp(record.completed),
        logs=_descriptor(record.logs),
        trace=_descriptor(record.trace),
        ExporterResponse=record.response,
        Result=_info_message(record.result) if record.result else None,
        Results={platform: _info_message(info) for platform, info in record.results.items()},
        Generation=record.generation,
        pinned=record.pinned,
        numTotalSteps=steps.total,
        numCompletedSteps=steps.completed,
        numCachedSteps=steps.cached,
        numWarnings=steps.warnings,
    )


def record(message: BuildHistoryRecord) -> BuildRecord:
    return BuildRecord(
        ref=message.Ref,
        frontend=message.Frontend,
        options=dict(message.FrontendAttrs),
        exports=tuple(Export(type=each.Type, attrs=dict(each.Attrs)) for each in message.Exporters),
        created=seconds(message.CreatedAt),
        completed=seconds(message.CompletedAt) if message.HasField("CompletedAt") else None,
        failure=_failure(message),
        response=dict(message.ExporterResponse),
        result=_info(message.Result) if message.HasField("Result") else None,
        results={platform: _info(info) for platform, info in message.Results.items()},
        logs=_blob(message.logs) if message.HasField("logs") else None,
        trace=_blob(message.trace) if message.HasField("trace") else None,
        steps=Steps(
            total=message.numTotalSteps,
            completed=message.numCompletedSteps,
            cached=message.numCachedSteps,
            warnings=message.numWarnings,
        ),
        pinned=message.pinned,
        generation=message.Generation,
    )


def _failure(message: BuildHistoryRecord) -> Failure | None:
    if not message.HasField("error"):
        return None
    blob = _blob(message.externalError) if message.HasField("externalError") else None
    return Failure(code=message.error.code, message=message.error.message, blob=blob)


def _descriptor(blob: Blob | None) -> Descriptor | None:
    if blob is None:
        return None
    return Descriptor(
        media_type=blob.media_type, digest=blob.digest, size=blob.size, annotations=dict(blob.annotations)
    )


def _blob(message: Descriptor) -> Blob:
    return Blob(
        media_type=message.media_type,
        digest=Digest(message.digest),
        size=message.size,
        annotations=dict(message.annotations),
    )


def _info_message(info: ResultInfo) -> BuildResultInfo:
    first = min(info.results, default=None)
    return BuildResultInfo(
        ResultDeprecated=None if first is None else _descriptor(info.results[first]),
        Attestations=[made for blob in info.attestations if (made := _descriptor(blob))],
        Results={place: made for place, blob in info.results.items() if (made := _descriptor(blob))},
    )


def _info(message: BuildResultInfo) -> ResultInfo:
    return ResultInfo(
        results={place: _blob(each) for place, each in message.Results.items()},
        attestations=tuple(_blob(each) for each in message.Attestations),
    )
