"""What users call an operation: the frontend's name for it, or one made from what it does (BuildKit's wording)."""

from __future__ import annotations

from collections.abc import Sequence

from llb.ops import (
    NO_INPUT,
    Action,
    BuildOp,
    CopyAction,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    MkDir,
    MkFile,
    Op,
    OpMetadata,
    Remove,
    SourceOp,
    Symlink,
)

CUSTOM_NAME = "llb.customname"  # the key in OpMetadata.description
_LONGEST_INPUT = 100  # names of merges hold the names of their inputs: without a limit a chain of them is quadratic


def name(op: Op, metadata: OpMetadata, inputs: Sequence[str] = ()) -> str:
    """The name of an operation; `inputs` are the names of its inputs, for merge and diff."""
    return metadata.description.get(CUSTOM_NAME) or _made_name(op, inputs)


def _made_name(op: Op, inputs: Sequence[str]) -> str:
    match op.payload:
        case SourceOp() as payload:
            return payload.identifier
        case ExecOp() as payload:
            return " ".join(payload.meta.args)
        case FileOp() as payload:
            return ", ".join([_action_name(step.action) for step in payload.actions])
        case MergeOp() as payload:
            return f"merge ({', '.join([_input_name(i, inputs) for i in payload.inputs])})"
        case DiffOp() as payload:
            sides = [_input_name(i, inputs) for i in (payload.lower, payload.upper)]
            return " -> ".join(["diff " + _bracketed(sides[0]), _bracketed(sides[1])])
        case BuildOp():
            return "build"
    return "result"


def _input_name(index: int, inputs: Sequence[str]) -> str:
    if index == NO_INPUT:
        return "scratch"
    if not 0 <= index < len(inputs):
        return "?"
    text = inputs[index]
    return text if len(text) <= _LONGEST_INPUT else text[: _LONGEST_INPUT - 1] + "…"


def _bracketed(text: str) -> str:
    return text if text == "scratch" else f"({text})"


def _action_name(action: Action) -> str:
    match action:
        case CopyAction():
            return f"copy {action.src} {action.dest}"
        case MkFile():
            return f"mkfile {action.path}"
        case MkDir():
            return f"mkdir {action.path}"
        case Remove():
            return f"rm {action.path}"
        case Symlink():
            return f"symlink {action.newpath} -> {action.oldpath}"
