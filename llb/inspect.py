"""A definition for people: JSON as `buildctl debug dump-llb` prints it, and a drawing in Graphviz's DOT.

Both show definitions that would not load, since that is when one looks. networkx takes a tenth of a second to
import and is imported where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from buildengine.errors import InvalidDefinition
from llb import codec, names
from llb.codec.documents import Document, metadata_document, op_document
from llb.definition import Definition
from llb.ops import OpMetadata

if TYPE_CHECKING:
    import networkx

_SHAPES = {
    "source": "ellipse",
    "exec": "box",
    "file": "note",
    "build": "box3d",
    "merge": "invtriangle",
    "diff": "doublecircle",
}
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": ""})


def documents(definition: Definition) -> Iterator[Document]:
    """For each operation in turn: what it is (`Op`), its `Digest`, and what is known beside it (`OpMetadata`)."""
    for digest, data in zip(definition.digests(), definition.ops, strict=True):
        yield {
            "Op": op_document(data),
            "Digest": digest,
            "OpMetadata": metadata_document(definition.metadata.get(digest, OpMetadata())),
        }


def to_json(definition: Definition) -> Iterator[str]:
    """One line of JSON for each operation."""
    for document in documents(definition):
        yield json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def to_networkx(definition: Definition) -> networkx.MultiDiGraph[str]:
    """The graph, for analysis: nodes are digests with `label` and `shape`, edges go from input to user."""
    import networkx

    graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph()
    labels: dict[str, str] = {}
    for document, data in zip(documents(definition), definition.ops, strict=True):
        digest, op = document["Digest"], document["Op"]
        inputs = [labels.get(edge.get("digest", ""), "?") for edge in op.get("inputs", ())]
        metadata = definition.metadata.get(digest, OpMetadata())
        labels[digest] = _label(data, metadata, inputs) or digest
        graph.add_node(digest, label=labels[digest], shape=_SHAPES.get(next(iter(op["Op"]), ""), "plaintext"))
    for document in documents(definition):
        for position, edge in enumerate(document["Op"].get("inputs", ())):
            graph.add_edge(edge.get("digest", ""), document["Digest"], label=_mounted(document["Op"], position))
    return graph


def to_dot(definition: Definition) -> str:
    """A drawing: `dot -Tsvg`."""
    graph = to_networkx(definition)
    lines = ["digraph {"]
    for node, attributes in graph.nodes(data=True):
        lines.append(f"  {_quoted(node)} [{_attributes(attributes)}];")
    for start, end, attributes in graph.edges(data=True):
        lines.append(f"  {_quoted(start)} -> {_quoted(end)} [{_attributes(attributes)}];")
    return "\n".join([*lines, "}", ""])


def _label(data: bytes, metadata: OpMetadata, inputs: list[str]) -> str:
    try:
        return names.name(codec.decode(data), metadata, inputs)
    except InvalidDefinition:
        return ""


def _mounted(op: Document, position: int) -> str:
    """Where an exec mounts input number `position`; nothing for the root and for other operations."""
    mounts = op["Op"].get("exec", {}).get("mounts", ())
    return ", ".join([m["dest"] for m in mounts if m.get("input", 0) == position and m.get("dest", "/") != "/"])


def _attributes(attributes: dict[str, Any]) -> str:
    return " ".join([f"{name}={_quoted(value)}" for name, value in attributes.items()])


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPED)}"'
