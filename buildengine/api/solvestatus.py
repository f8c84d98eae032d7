"""The status of a solve that failed: beside what every error says, the operation that it was, as BuildKit's clients
look for it (solver/errdefs: Solve, Frontend)."""

from __future__ import annotations

from google.protobuf import json_format

from buildengine.api import errdefs_pb2
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.api.status import detail, to_rpc
from buildengine.digest import Digest
from buildengine.errors import BuildError, Unsupported, UserError
from buildengine.values import dataclass
from llb.definition import Definition
from llb.pb import ops_pb2

SOLVE = "github.com/moby/buildkit/errdefs.Solve+json"
FRONTEND = "github.com/moby/buildkit/errdefs.Frontend+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a failed operation has left behind, as references, "" where there is nothing.

    Of an exec by the position of its mounts: what they were made of, and what they held. Of a file operation its
    inputs, and what each action has made; number `action` failed. Of one whose key could not be computed, the one input
    that was to be digested, number `dependency`.
    """

    inputs: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    action: int | None = None
    dependency: int | None = None


_NOTHING = Left()


def solve_failed(error: BuildError | RpcError, definition: Definition | None, left: Left = _NOTHING) -> RpcError:
    """`definition` is the one that was solved, None where there was none."""
    told = to_rpc(error)
    if isinstance(error, UserError) and not isinstance(error, Unsupported):
        # Go's clients print a code before the message, and BuildKit gives these none.
        told = RpcError(Code.UNKNOWN, told.message, told.details)
    if any(each.type_url == SOLVE for each in told.details):
        return told
    vertex = error.vertex if isinstance(error, BuildError) else None
    message = errdefs_pb2.Solve(inputIDs=left.inputs, mountIDs=left.mounts)
    if left.action is not None:
        message.file.CopyFrom(errdefs_pb2.FileAction(index=left.action))
    if left.dependency is not None:
        message.cache.CopyFrom(errdefs_pb2.ContentCache(index=left.dependency))
    _describe(message, definition, vertex)
    return to_rpc(told, Detail(type_url=SOLVE, value=json_format.MessageToJson(message, indent=None).encode()))


def frontend_failed(error: BuildError | RpcError, frontend: str, source: str) -> RpcError:
    """`source` is the image of a frontend that is one."""
    return to_rpc(solve_failed(error, None), detail(FRONTEND, {"name": frontend, "source": source}))


def _describe(message: errdefs_pb2.Solve, definition: Definition | None, vertex: str | None) -> None:
    for op in definition.ops if definition is not None and vertex is not None else ():
        digest = Digest.sha256(op)
        if digest == vertex:
            message.op.CopyFrom(ops_pb2.Op.FromString(op))
            known = definition.metadata.get(digest) if definition is not None else None
            message.description.update(known.description if known is not None else {})
