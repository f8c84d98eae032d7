"""The operations of a definition as steps of a provenance, and where in the user's files they come from. Pure.

    step0, step1, ...    operations, inputs before users; an input is `step0:1`, the step and its output

Facts: BuildKit solver/llbsolver/provenance.go (AddBuildConfig, toBuildSteps), provenance/types/types.go (the names).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from buildengine.digest import Digest
from buildengine.errors import SourceRange
from buildengine.values import dataclass
from llb.codec.documents import step_document
from llb.definition import Definition
from llb.order import postorder
from llb.sourcemap import Place, SourceFile, SourceMap

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """`numbers` are those of the operations, by digest; `listed` are the documents in that order."""

    numbers: Mapping[Digest, int]
    listed: tuple[Document, ...]

    def document(self) -> Document:
        """A `buildConfig`; empty for the empty tree."""
        if not self.listed:
            return {}
        mapping = {str(digest): f"step{number}" for digest, number in self.numbers.items()}
        return {"llbDefinition": list(self.listed), "digestMapping": dict(sorted(mapping.items()))}


def steps(definition: Definition) -> Steps:
    """Raises InvalidDefinition."""
    if definition.is_scratch:
        return Steps(numbers={}, listed=())
    digests = definition.digests()
    read = {digest: step_document(data) for digest, data in zip(digests, definition.ops, strict=True)}
    order = postorder(digests[-1], lambda digest: [Digest(needed) for needed, _ in read[digest][1]])
    numbers = {digest: number for number, digest in enumerate(order)}
    listed = []
    for digest, number in numbers.items():
        document, inputs = read[digest]
        step: Document = {"id": f"step{number}", "op": document}
        if inputs:
            step["inputs"] = [f"step{numbers[Digest(needed)]}:{output}" for needed, output in inputs]
        listed.append(step)
    return Steps(numbers=numbers, listed=tuple(listed))


def source_document(source: SourceMap, numbers: Mapping[Digest, int]) -> Document | None:
    """The files that the frontend has read and the places of the steps in them; None without any."""
    if not source.files:
        return None
    index = {file: position for position, file in enumerate(source.files)}
    places = {numbers[digest]: found for digest, found in source.places.items() if digest in numbers}
    named = {f"step{number}": _locations(found, index) for number, found in places.items()}
    document: Document = {"locations": dict(sorted(named.items()))} if named else {}
    return document | {"infos": [_file(file) for file in source.files]}


def _locations(places: tuple[Place, ...], index: Mapping[SourceFile, int]) -> Document:
    return {"locations": [_place(place, index[place.file]) for place in places]} if places else {}


def _place(place: Place, position: int) -> Document:
    document: Document = {"sourceIndex": position} if position else {}
    return document | ({"ranges": [_range(each) for each in place.ranges]} if place.ranges else {})


def _range(given: SourceRange) -> Document:
    return {
        "start": _position(given.start_line, given.start_column),
        "end": _position(given.end_line, given.end_column),
    }


def _position(line: int, character: int) -> Document:
    return ({"line": line} if line else {}) | ({"character": character} if character else {})


def _file(file: SourceFile) -> Document:
    named = {
        "filename": file.filename,
        "language": file.language,
        "data": base64.b64encode(file.data).decode(),
    }
    document = {name: value for name, value in named.items() if value}
    return document | steps(Definition.from_bytes(file.definition)).document()
