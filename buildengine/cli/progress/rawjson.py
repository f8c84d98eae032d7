"""Progress for programs: one JSON object a line, in the shape of BuildKit's SolveStatus (client/graph.go).

Times are RFC 3339 in UTC, bytes are base64, empty fields are left out, as Go's encoder does.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from buildengine.cli.progress.model import Change
from buildengine.errors import Location
from buildengine.events import Event, ExplainEvent, LogEvent, Outcome, StatusEvent, VertexEvent, WarningEvent
from buildengine.units import timestamp


class RawJsonPainter:
    """Writes every event, also those that change nothing that other painters show."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def event(self, event: Event, change: Change | None) -> None:
        self._write(encode(event) + "\n")

    def tick(self) -> None:
        """Nothing moves without an event."""

    def close(self, outcome: str) -> None:
        """Every line is already out."""


def encode(event: Event) -> str:
    """`event` as one line of JSON."""
    if isinstance(event, VertexEvent):
        document = {"vertexes": [_vertex(event)]}
    elif isinstance(event, StatusEvent):
        document = {"statuses": [_status(event)]}
    elif isinstance(event, LogEvent):
        document = {"logs": [_log(event)]}
    elif isinstance(event, ExplainEvent):
        document = {"explanations": [_explanation(event)]}
    else:
        document = {"warnings": [_warning(event)]}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _vertex(event: VertexEvent) -> dict[str, Any]:
    error = event.error
    if event.outcome is Outcome.CANCELED and not error.endswith("context canceled"):
        error = f"{error}: context canceled" if error else "context canceled"  # how readers tell it from a failure
    group = event.group and _present(id=event.group.id, name=event.group.name, weak=event.group.weak)
    return _present(
        digest=event.digest,
        inputs=list(event.inputs),
        name=event.name,
        started=_time(event.started),
        completed=_time(event.completed),
        cached=event.outcome is Outcome.CACHED,
        error=error,
        progressGroup=group,
    )


def _status(event: StatusEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        **_present(vertex=event.vertex, name=event.name, total=event.total),
        "current": event.current,
        "timestamp": _time(event.timestamp),
        **_present(started=_time(event.started), completed=_time(event.completed)),
    }


def _log(event: LogEvent) -> dict[str, Any]:
    return {
        **_present(vertex=event.vertex, stream=event.stream),
        "data": _bytes(event.data),
        "timestamp": _time(event.timestamp),
    }


def _warning(event: WarningEvent) -> dict[str, Any]:
    where = event.location
    return _present(
        vertex=event.vertex,
        level=event.level,
        short=_bytes(event.message.encode()),
        detail=[_bytes(line.encode()) for line in event.detail],
        url=event.url,
        sourceInfo=where and _present(filename=where.filename, data=_bytes(where.text)),
        range=_ranges(where) if where else None,
    )


def _explanation(event: ExplainEvent) -> dict[str, Any]:
    """Ours, and no part of BuildKit's status: told only where somebody asked for it."""
    return _present(
        vertex=event.vertex,
        name=event.name,
        fate=event.fate,
        cause=event.cause.value,
        text=event.text,
        details=list(event.details),
        since=_time(event.since),
    )


def _ranges(where: Location) -> list[dict[str, Any]]:
    return [
        {
            "start": _present(line=place.start_line, character=place.start_column),
            "end": _present(line=place.end_line, character=place.end_column),
        }
        for place in where.ranges
    ]


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _bytes(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
