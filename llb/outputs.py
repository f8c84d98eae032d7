"""Which results an operation has, and in what order: what an `Input.index` counts."""

from __future__ import annotations

from llb.ops import NO_INPUT, NO_OUTPUT, ExecOp, FileOp, Mount, MountType, Op


def exec_outputs(op: ExecOp) -> tuple[int, ...]:
    """The positions in `op.mounts` of the mounts whose trees are the results, result 0 first.

    Position counts, not the number in `output` (BuildKit, PrepareMounts): a client that numbers its mounts
    differently still gets them in mount order. Secret, ssh and tmpfs mounts never become a result, whatever they
    say; BuildKit's client leaves their `output` at 0.
    """
    return tuple([position for position, mount in enumerate(op.mounts) if _is_output(mount)])


def _is_output(mount: Mount) -> bool:
    if mount.output == NO_OUTPUT:
        return False
    return mount.type == MountType.BIND or (mount.type == MountType.CACHE and mount.input != NO_INPUT)


def output_count(op: Op) -> int:
    """How many results the operation has; every input that refers to it has a lower index."""
    match op.payload:
        case ExecOp() as payload:
            return len(exec_outputs(payload))
        case FileOp() as payload:
            return len([None for action in payload.actions if action.output != NO_OUTPUT])
    return 1
