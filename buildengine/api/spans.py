"""The trace of a build that has ended, as `docker buildx history trace` reads it: spans of the call and of its steps.

The document is a JSON object for each span, as Go's tracetest.SpanStub is written (BuildKit solver/llbsolver/solver.go,
recordBuildHistory). The trace is that of the client, where its call names one (`traceparent`, W3C Trace Context). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from buildengine import __version__
from buildengine.events import Outcome, VertexEvent
from buildengine.values import dataclass

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*", re.DOTALL)
_TRACE, _SPAN = 16, 8  # bytes of an id
_INTERNAL, _SERVER = 1, 2  # go.opentelemetry.io/otel/trace, SpanKind
_UNSET, _ERROR = 0, 1  # otel/codes
_SCOPE = {"Name": "pybuild", "Version": __version__, "SchemaURL": "", "Attributes": None}
_RESOURCE = [{"Key": "service.name", "Value": {"Type": "STRING", "Value": "pybuildd"}}]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanId:
    """One span of one trace, in hexadecimal digits; empty ones are none."""

    trace: str = ""
    span: str = ""

    @property
    def document(self) -> dict[str, Any]:
        return {
            "TraceID": self.trace or "0" * 2 * _TRACE,
            "SpanID": self.span or "0" * 2 * _SPAN,
            "TraceFlags": "01" if self.trace else "00",
            "TraceState": "",
            "Remote": False,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The call that asked for a build. Times are seconds since the epoch; `error` is "" for one that went well."""

    name: str
    traceparent: str = ""
    started: float
    ended: float
    error: str = ""


def document(call: Call, steps: Iterable[VertexEvent], *, make_id: Callable[[int], str] = token_hex) -> bytes:
    """The trace. Steps that have not run, in whole or from the cache, are not in it."""
    return b"".join(json.dumps(span).encode() + b"\n" for span in _spans(call, steps, make_id))


def _spans(call: Call, steps: Iterable[VertexEvent], make_id: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    named = _PARENT.fullmatch(call.traceparent)
    parent = SpanId(trace=named[1], span=named[2]) if named else SpanId()
    trace = parent.trace or make_id(_TRACE)
    root = SpanId(trace=trace, span=make_id(_SPAN))
    ran = [step for step in steps if step.started is not None and step.completed is not None]
    yield {
        **_described(call.name, root, parent, call.error),
        **_times(call.started, call.ended),
        "SpanKind": _SERVER,
        "Attributes": [],
        "ChildSpanCount": len(ran),
    }
    for step in ran:
        cached = step.outcome is Outcome.CACHED
        name = f"load cache: {step.name}" if cached else step.name
        yield {
            **_described(name, SpanId(trace=trace, span=make_id(_SPAN)), root, step.error),
            **_times(step.started or 0.0, step.completed or 0.0),
            "SpanKind": _INTERNAL,
            "Attributes": [{"Key": "vertex", "Value": {"Type": "STRING", "Value": step.digest}}],
            "ChildSpanCount": 0,
        }


def _described(name: str, own: SpanId, parent: SpanId, error: str) -> dict[str, Any]:
    return {
        "Name": name,
        "SpanContext": own.document,
        "Parent": parent.document,
        "Events": None,
        "Links": None,
        "Status": {"Code": _ERROR if error else _UNSET, "Description": error},
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "Resource": _RESOURCE,
        "InstrumentationScope": _SCOPE,
        "InstrumentationLibrary": _SCOPE,
    }


def _times(started: float, ended: float) -> dict[str, str]:
    moments = (datetime.fromtimestamp(each, UTC).isoformat(timespec="microseconds") for each in (started, ended))
    begun, over = (moment.replace("+00:00", "Z") for moment in moments)
    return {"StartTime": begun, "EndTime": over}
