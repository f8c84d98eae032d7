"""What the frontend answers when it is asked about a Dockerfile and not for a build: the subrequests.

An answer is metadata of a result without a reference: `result.json` for programs, `result.txt` for people, the version
of the answer's form, and for the linter an exit status. Keys, JSON and texts are those of BuildKit's clients
(frontend/subrequests, solver/errdefs/source.go). Pure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from google.protobuf import json_format
from google.protobuf.message import Message

from buildengine.errors import BuildError, Location, SourceRange
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.lint import Finding
from frontends.dockerfile.outline import Outline
from llb.codec.documents import definition_document, metadata_document
from llb.definition import Definition
from llb.pb import ops_pb2
from llb.sourcemap import SourceFile

CONVERT = "frontend.convertllb"
DESCRIBE = "frontend.subrequests.describe"
LINT = "frontend.lint"
OUTLINE = "frontend.outline"
TARGETS = "frontend.targets"

Answer = Mapping[str, bytes]
_Row = Sequence[str]

_VERSION = "1.0.0"
_DESCRIBED: Sequence[tuple[str, str, Sequence[tuple[str, str]] | None]] = (
    (OUTLINE, "List all parameters current build target supports", [("target", "Target build stage")]),
    (TARGETS, "List all targets current build supports", []),
    (DESCRIBE, "List available subrequest types", None),
)
_RULE = "-" * 20


def describe() -> Answer:
    """Which questions there are; `LINT` is asked without."""
    document = [
        {
            "name": name,
            "version": _VERSION,
            "type": "rpc",
            "description": description,
            "opts": options if options is None else [_named(*option) for option in options],
            "inputs": None,
            "metadata": [_named("result.json"), _named("result.txt")],
            "refs": None,
        }
        for name, description, options in _DESCRIBED
    ]
    rows = [(name.removeprefix("frontend."), _VERSION, description) for name, description, _ in _DESCRIBED]
    return _answer(document, _table([("NAME", "VERSION", "DESCRIPTION"), *rows], gap=1))


def _named(name: str, description: str = "") -> dict[str, str]:
    return {"name": name, "description": description}


def targets(stages: Sequence[ins.From], data: bytes) -> Answer:
    """The stages as written: no variable is expanded."""
    listed = [
        _some(
            name=stage.stage_name.lower(),
            default=stage is stages[-1],
            description=stage.description,
            base=stage.image,
            platform=stage.platform,
            location=_location(stage.location),
        )
        for stage in stages
    ]
    rows = [(_shown_target(each), each.get("description", "")) for each in listed]
    document = {"targets": listed, "sources": [_base64(data)]}
    return _answer(document, _table([("TARGET", "DESCRIPTION"), *rows], gap=1))


def _shown_target(target: Mapping[str, Any]) -> str:
    return " ".join(part for part in (target.get("name"), "(default)" if target.get("default") else None) if part)


def outline(found: Outline, data: bytes) -> Answer:
    document = _some(
        name=found.name,
        description=found.description,
        args=[
            _some(description=arg.description, value=arg.value, location=_location(arg.location), always={"name": name})
            for name, arg in found.arguments
        ],
        secrets=[_wanted(name, where, required) for name, where, required in found.secrets],
        ssh=[_wanted(name, where, required) for name, where, required in found.agents],
        sources=[_base64(data)],
    )
    return _answer(document, "".join(_outline_tables(found)))


def _wanted(name: str, where: Location, required: bool) -> dict[str, Any]:
    return _some(required=required, location=_location(where), always={"name": name})


def _outline_tables(found: Outline) -> Iterator[str]:
    if found.name or found.description:
        rows = [("TARGET:", found.name or "(default)")]
        rows += [("DESCRIPTION:", found.description)] if found.description else []
        yield _table(rows, gap=1) + "\n"
    if found.arguments:
        described = [(name, arg.value, arg.description) for name, arg in found.arguments]
        yield _table([("BUILD ARG", "VALUE", "DESCRIPTION"), *described], gap=3) + "\n"
    for title, wanted in (("SECRET", found.secrets), ("SSH", found.agents)):
        if wanted:
            asked = [(name, "true" if required else "") for name, _, required in wanted]
            yield _table([(title, "REQUIRED"), *asked], gap=3) + "\n"


def lint(source: SourceFile, findings: Sequence[Finding], error: BuildError | None) -> Answer:
    """`error` is what ended the linting before the file did: what was found until then is told as well."""
    warnings = [_warning(each) for each in findings]
    document: dict[str, Any] = {"warnings": warnings or None, "sources": [_source(source)]}
    if error is not None:
        found = _location(error.locations[0]) if error.locations else None
        document["buildError"] = {"message": error.message, "location": found or {}}
    text = printed(findings)
    status = b"1" if findings or error is not None else b"0"
    return {**_answer(document, text), "result.statuscode": status}


def _warning(finding: Finding) -> dict[str, Any]:
    location = _location(finding.location) or {}
    said = _some(description=finding.description, url=finding.url, detail=finding.message)
    return {"ruleName": finding.rule, **said, "location": location}


def converted(definition: Definition) -> Answer:
    """The operations by their digests, as protobuf's own JSON has them (frontend/subrequests/convertllb)."""
    operations = {str(digest): data for digest, data in zip(definition.digests(), definition.ops, strict=True)}
    message = ops_pb2.Definition.FromString(definition.to_bytes())
    document = {
        "def": {digest: _message(ops_pb2.Op.FromString(data)) for digest, data in sorted(operations.items())},
        "metadata": {str(digest): metadata_document(known) for digest, known in sorted(definition.metadata.items())},
        "source": _message(message.Source),
    }
    said = json.dumps(document, indent=2, ensure_ascii=False)
    return {"result.json": said.encode("utf-8", "replace"), "version": b"0.1.0"}


def _message(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message)


class Printable(Protocol):
    """What a linter has found, this one or another: see `lint.Finding`."""

    @property
    def rule(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def location(self) -> Location: ...


def printed(findings: Iterable[Printable]) -> str:
    """For people, in the order of the file."""
    return "".join(_printed(each) for each in sorted(findings, key=_line))


def _line(finding: Printable) -> int:
    return min((each.start_line for each in finding.location.ranges), default=0)


def _printed(finding: Printable) -> str:
    title = f"{finding.rule} - {finding.url}" if finding.url else finding.rule
    return f"\nWARNING: {title}\n{finding.message}\n" + "".join(f"{line}\n" for line in _excerpt(finding.location))


def _excerpt(location: Location) -> Iterator[str]:
    lines = location.text.decode("utf-8", "replace").split("\n")
    marked = {n for each in location.ranges for n in range(each.start_line, max(each.start_line, each.end_line) + 1)}
    first, last = min(marked, default=0), min(max(marked, default=0), len(lines))
    if not 1 <= first <= len(lines):
        return
    yield f"{location.filename}:{first}"
    yield _RULE
    start, end = _around(first, last, len(lines))
    for number in range(start, end + 1):
        yield f" {number:3d} | {'>>>' if number in marked else '   '} {lines[number - 1]}"
    yield _RULE


def _around(first: int, last: int, most: int) -> tuple[int, int]:
    """Some lines before and behind; more on one side where the other has none."""
    wanted, added, start, end = 4 if first == last else 2, 0, first, last
    while added < wanted:
        before, behind = start > 1, end != most
        start, end = start - before, end + behind
        added += before + behind + 1
    return start, end


# --- forms -----------------------------------------------------------------------------------------------------


def _answer(document: object, text: str) -> Answer:
    return {
        "result.json": json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace"),
        "result.txt": text.encode("utf-8", "replace"),
        "version": _VERSION.encode(),
    }


def _some(*, always: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The fields that say something, as Go's omitempty has it, behind those that are there in any case."""
    return {**(always or {}), **{name: value for name, value in fields.items() if value}}


def _location(location: Location | None) -> dict[str, Any] | None:
    """solver/pb Location, whose source is the only one."""
    if location is None or not location.ranges:
        return None
    return {"ranges": [_range(each) for each in location.ranges]}


def _range(place: SourceRange) -> dict[str, Any]:
    """Lines only, as BuildKit's parser counts nothing else: clients compare these answers."""
    return {"start": _some(line=place.start_line), "end": _some(line=place.end_line)}


def _source(source: SourceFile) -> dict[str, Any]:
    """solver/pb SourceInfo."""
    return _some(
        filename=source.filename,
        data=_base64(source.data),
        definition=definition_document(source.definition),
        language=source.language,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _table(rows: Iterable[_Row], *, gap: int) -> str:
    """Columns `gap` spaces apart; nothing behind the last."""
    rows = list(rows)
    widths = [max(map(len, column)) + gap for column in list(zip(*rows, strict=True))[:-1]]
    return "".join("".join(map(str.ljust, row, widths)) + row[-1] + "\n" for row in rows)
