"""Whether one operation makes sense by itself: everything an executor may then rely on without looking.

Raises InvalidDefinition with the problem alone; `llb.graph` adds whose it is and where.
"""

from __future__ import annotations

from buildengine.errors import InvalidDefinition
from llb.ops import (
    NO_INPUT,
    NO_OUTPUT,
    Action,
    BuildOp,
    CopyAction,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    MountType,
    NamedUser,
    Op,
    Remove,
    SourceOp,
    Symlink,
)

LLB_BUILDER = -1  # BuildOp.builder: the definition itself is built, no frontend
LLB_INPUT = "buildkit.llb.definition"  # the name of the input that holds it


def check(op: Op) -> None:
    """Raises InvalidDefinition unless the operation can be executed once its inputs are there."""
    count = len(op.inputs)
    match op.payload:
        case None:
            raise InvalidDefinition("only the last operation of a definition may do nothing")
        case SourceOp() as payload:
            if "://" not in payload.identifier:
                raise InvalidDefinition(f"source {payload.identifier[:200]!r} has no scheme")
        case ExecOp() as payload:
            _check_exec(payload, count)
        case FileOp() as payload:
            _check_file(payload, count)
        case MergeOp() as payload:
            for index in payload.inputs:
                _check_input("merged tree", index, count, lowest=0)
        case DiffOp() as payload:
            _check_input("lower tree", payload.lower, count)
            _check_input("upper tree", payload.upper, count)
        case BuildOp() as payload:
            if payload.builder != LLB_BUILDER:
                raise InvalidDefinition(f"nested build with frontend {payload.builder}: only LLB can be built")
            if LLB_INPUT not in payload.inputs:
                raise InvalidDefinition(f"nested build without an input {LLB_INPUT!r}")
            for name, index in payload.inputs.items():
                _check_input(f"input {name!r} of the nested build", index, count, lowest=0)


def _check_input(what: str, index: int, count: int, *, lowest: int = NO_INPUT) -> None:
    if not lowest <= index < count:
        raise InvalidDefinition(f"{what}: there is no input {index}, only {count}")


def _check_exec(op: ExecOp, count: int) -> None:
    if not op.meta.args:
        raise InvalidDefinition("there is no command to run")
    roots = [mount for mount in op.mounts if mount.dest == "/"]
    if not roots:
        raise InvalidDefinition("no mount is the root file system")
    _check_paths(op.meta.cwd)
    for mount in op.mounts:
        _check_paths(mount.dest, mount.selector)
        if mount.dest == "/" and mount.type != MountType.BIND:
            raise InvalidDefinition(f"a {mount.type.name.lower()} mount cannot be the root file system")
        _check_input(f"mount {mount.dest}", mount.input, count)
        if mount.output < NO_OUTPUT:
            raise InvalidDefinition(f"mount {mount.dest}: there is no output {mount.output}")


def _check_file(op: FileOp, count: int) -> None:
    if not op.actions:
        raise InvalidDefinition("there is no file action")
    for position, step in enumerate(op.actions):
        known = count + position  # the op's inputs, then the results of the earlier actions
        _check_input(f"file action {position}", step.input, known)
        _check_input(f"source of file action {position}", step.secondary_input, known)
        _check_owner(step.action, known)
        _check_paths(*_paths(step.action))
    outputs = sorted([step.output for step in op.actions if step.output != NO_OUTPUT])
    if not outputs or outputs != list(range(len(outputs))):
        raise InvalidDefinition(f"file actions have the outputs {outputs}: they must count from 0")


def _paths(action: Action) -> tuple[str, ...]:
    match action:
        case CopyAction():
            return action.src, action.dest, *action.required_paths
        case Symlink():
            return action.oldpath, action.newpath
        case _:
            return (action.path,)


def _check_paths(*paths: str) -> None:
    for path in paths:
        if "\0" in path:
            raise InvalidDefinition(f"the path {path[:200]!r} has a NUL byte in it")


def _check_owner(action: Action, known: int) -> None:
    if isinstance(action, Remove) or action.owner is None:
        return
    for user in (action.owner.user, action.owner.group):
        if not isinstance(user, NamedUser):
            continue
        if user.input == NO_INPUT:
            raise InvalidDefinition(
                f"owner {user.name!r} is a name, and there is no tree to look it up in", hint="use a numeric id"
            )
        _check_input(f"owner {user.name!r}", user.input, known, lowest=0)
