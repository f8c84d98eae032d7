"""What a state would build, looked at through `load`."""

from __future__ import annotations

from llb.graph import Graph, load
from llb.ops import ExecOp, FileOp, Op, SourceOp
from llb.state import State
from tests.unit.llb_samples import AMD64


def graph(state: State, unique: str = "") -> Graph:
    return load(state.marshal(AMD64, unique=unique))


def result(state: State, unique: str = "") -> Op:
    """The operation that makes the state."""
    loaded = graph(state, unique)
    return loaded.nodes[loaded.root.digest].op


def source(state: State, unique: str = "") -> SourceOp:
    payload = result(state, unique).payload
    assert isinstance(payload, SourceOp)
    return payload


def exec_op(state: State) -> ExecOp:
    payload = result(state).payload
    assert isinstance(payload, ExecOp)
    return payload


def file_op(state: State) -> FileOp:
    payload = result(state).payload
    assert isinstance(payload, FileOp)
    return payload
