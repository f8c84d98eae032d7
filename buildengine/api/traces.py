"""OpenTelemetry's TraceService: spans of clients. Nothing collects them here, and that is what they are told.

BuildKit answers the same where no collector is configured (control/control.go, Export).
"""

from __future__ import annotations

from buildengine.api import rpc
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.api.trace_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


async def _export(
    request: ExportTraceServiceRequest, call: ServerCall[ExportTraceServiceRequest, ExportTraceServiceResponse]
) -> ExportTraceServiceResponse:
    raise RpcError(Code.UNAVAILABLE, "trace collector not configured")


SERVICES = rpc.service(SERVICE, {"Export": rpc.unary(ExportTraceServiceRequest, ExportTraceServiceResponse, _export)})
