"""The status of a solve that failed: beside what every error says, the operation that it was, as BuildKit's clients
look for it (solver/errdefs: Solve, Frontend, FrontendCap)."""

from __future__ import annotations

from google.protobuf import json_format

from buildengine.api import errdefs_pb2
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.api.status import FRONTEND_CAP, detail, to_rpc
from buildengine.digest import Digest
from buildengine.errors import BuildError
from llb.definition import Definition
from llb.pb import ops_pb2

SOLVE = "github.com/moby/buildkit/errdefs.Solve+json"
FRONTEND = "github.com/moby/buildkit/errdefs.Frontend+json"


def solve_failed(error: BuildError | RpcError, definition: Definition | None) -> RpcError:
    """`definition` is the one that was solved, None where there was none."""
    told = to_rpc(error)
    if any(each.type_url == SOLVE for each in told.details):
        return told
    vertex = error.vertex if isinstance(error, BuildError) else None
    return to_rpc(told, _solve(definition, vertex))


def frontend_failed(error: BuildError | RpcError, frontend: str, source: str) -> RpcError:
    """`source` is the image of a frontend that is one."""
    return to_rpc(solve_failed(error, None), detail(FRONTEND, {"name": frontend, "source": source}))


def frontend_lacks(capability: str) -> RpcError:
    told = f"unsupported frontend capability {capability}"
    return RpcError(Code.UNIMPLEMENTED, told, (detail(FRONTEND_CAP, {"name": capability}),))


def _solve(definition: Definition | None, vertex: str | None) -> Detail:
    message = errdefs_pb2.Solve()
    for op in definition.ops if definition is not None and vertex is not None else ():
        digest = Digest.sha256(op)
        if digest == vertex:
            message.op.CopyFrom(ops_pb2.Op.FromString(op))
            known = definition.metadata.get(digest) if definition is not None else None
            message.description.update(known.description if known is not None else {})
    return Detail(type_url=SOLVE, value=json_format.MessageToJson(message, indent=None).encode())
