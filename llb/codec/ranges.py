"""Places in a file, as `pb.Range` has them. Lines count from 1, characters from 0."""

from __future__ import annotations

from buildengine.errors import SourceRange
from llb.pb import ops_pb2 as pb


def range_message(r: SourceRange) -> pb.Range:
    return pb.Range(
        start=pb.Position(line=r.start_line, character=r.start_column),
        end=pb.Position(line=r.end_line, character=r.end_column),
    )


def source_range(m: pb.Range) -> SourceRange:
    return SourceRange(
        start_line=m.start.line,
        end_line=m.end.line,
        start_column=m.start.character,
        end_column=m.end.character,
    )
