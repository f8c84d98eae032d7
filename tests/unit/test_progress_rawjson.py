"""The JSON lines, letter by letter: BuildKit's SolveStatus."""

from __future__ import annotations

import base64
import json

import pytest

from buildengine.cli.progress.rawjson import RawJsonPainter, encode
from buildengine.errors import Location, SourceRange
from buildengine.events import Event, LogEvent, Outcome, ProgressGroup, StatusEvent, VertexEvent, WarningEvent

TIME = 1714564800.0  # 2024-05-01T12:00:00Z


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            VertexEvent(digest="sha256:a", name="[1/1] RUN x"),
            '{"vertexes":[{"digest":"sha256:a","name":"[1/1] RUN x"}]}',
        ),
        (
            VertexEvent(
                digest="a", name="ü", inputs=("b", "c"), started=TIME, completed=TIME + 0.25, outcome=Outcome.DONE
            ),
            '{"vertexes":[{"digest":"a","inputs":["b","c"],"name":"ü","started":"2024-05-01T12:00:00Z",'
            '"completed":"2024-05-01T12:00:00.25Z"}]}',
        ),
        (
            VertexEvent(digest="a", name="x", started=TIME, completed=TIME, outcome=Outcome.CACHED),
            '{"vertexes":[{"digest":"a","name":"x","started":"2024-05-01T12:00:00Z","completed":"2024-05-01T12:00:00Z",'
            '"cached":true}]}',
        ),
        (
            VertexEvent(digest="a", name="x", outcome=Outcome.FAILED, error="exit code: 1"),
            '{"vertexes":[{"digest":"a","name":"x","error":"exit code: 1"}]}',
        ),
        (
            VertexEvent(digest="a", name="x", outcome=Outcome.CANCELED),
            '{"vertexes":[{"digest":"a","name":"x","error":"context canceled"}]}',
        ),
        (
            VertexEvent(digest="a", name="x", outcome=Outcome.CANCELED, error="stopped"),
            '{"vertexes":[{"digest":"a","name":"x","error":"stopped: context canceled"}]}',
        ),
        (
            VertexEvent(digest="a", name="x", group=ProgressGroup(id="g", name="n", weak=True)),
            '{"vertexes":[{"digest":"a","name":"x","progressGroup":{"id":"g","name":"n","weak":true}}]}',
        ),
        (
            StatusEvent(id="s", vertex="a", timestamp=TIME),
            '{"statuses":[{"id":"s","vertex":"a","current":0,"timestamp":"2024-05-01T12:00:00Z"}]}',
        ),
        (
            StatusEvent(
                id="s", vertex="a", name="n", current=3, total=7, timestamp=TIME, started=TIME, completed=TIME + 2
            ),
            '{"statuses":[{"id":"s","vertex":"a","name":"n","total":7,"current":3,"timestamp":"2024-05-01T12:00:00Z",'
            '"started":"2024-05-01T12:00:00Z","completed":"2024-05-01T12:00:02Z"}]}',
        ),
        (
            LogEvent(vertex="a", stream=2, data=b"\xff\x1b[2J\n", timestamp=TIME + 1e-6),
            '{"logs":[{"vertex":"a","stream":2,"data":"/xtbMkoK","timestamp":"2024-05-01T12:00:00.000001Z"}]}',
        ),
        (WarningEvent(vertex="a", message="hi"), '{"warnings":[{"vertex":"a","level":1,"short":"aGk="}]}'),
    ],
)
def test_one_line_for_each_event(event: Event, line: str) -> None:
    assert encode(event) == line
    written: list[str] = []
    painter = RawJsonPainter(written.append)
    painter.event(event, None)
    painter.tick()
    painter.close("FINISHED")
    assert written == [line + "\n"]


def test_a_warning_with_its_place() -> None:
    place = Location(
        filename="Dockerfile",
        ranges=(SourceRange(start_line=2, end_line=3, start_column=1, end_column=4),),
        text=b"FROM x\n",
    )
    warning = WarningEvent(vertex="a", message="m", level=2, detail=("d",), url="https://u", location=place)
    document = json.loads(encode(warning))["warnings"][0]
    assert document == {
        "vertex": "a",
        "level": 2,
        "short": base64.b64encode(b"m").decode(),
        "detail": [base64.b64encode(b"d").decode()],
        "url": "https://u",
        "sourceInfo": {"filename": "Dockerfile", "data": base64.b64encode(b"FROM x\n").decode()},
        "range": [{"start": {"line": 2, "character": 1}, "end": {"line": 3, "character": 4}}],
    }
