"""The worker: LLB operations become `solver.Op`s of one build."""

from __future__ import annotations

from collections.abc import Callable

from buildengine import platform as platforms
from buildengine.errors import BuildError, InternalError, UserError
from buildengine.platform import Platform
from llb import ops
from llb.graph import Graph, Node
from solver.reporter import Reporter
from solver.vertex import Op
from worker.context import BuildContext, OpContext
from worker.ops import source
from worker.ops.exec import Exec
from worker.ops.file import File
from worker.ops.merge import Merge


def resolver(build: BuildContext) -> Callable[[Node, Reporter], Op]:
    """What makes ops for the vertices of this build. It raises UserError for what the build may not do."""
    local = platforms.local()

    def resolve(node: Node, reporter: Reporter) -> Op:
        context = OpContext(
            build=build,
            reporter=reporter,
            platform=node.op.platform or local,
            name=node.name,
        )
        try:
            return _make(context, node, local)
        except BuildError as error:
            raise error.located(*node.locations, vertex=node.digest) from None

    return resolve


async def renew_cache_mounts(build: BuildContext, graph: Graph) -> None:
    """Steps that ignore the cache begin with new cache mounts: once for a build, before any of its steps runs.

    So what one of them leaves in a mount, the next one finds (BuildKit solver/llbsolver: detectPrunedCacheID).
    """
    ids = {
        mount.cache.id
        for node in graph.nodes.values()
        if node.metadata.ignore_cache and isinstance(node.op.payload, ops.ExecOp)
        for mount in node.op.payload.mounts
        if mount.cache is not None
    }
    await build.cache.cachemounts.forget(ids - build.renewed_mounts)
    build.renewed_mounts.update(ids)


def _make(context: OpContext, node: Node, local: Platform) -> Op:
    payload = node.op.payload
    if isinstance(payload, ops.SourceOp):
        return source.make(context, payload)
    if isinstance(payload, ops.ExecOp):
        check_allowed(context.build, payload)
        return Exec(context, payload, input_count=len(node.op.inputs))
    if isinstance(payload, ops.FileOp):
        return File(context, payload, input_count=len(node.op.inputs))
    if isinstance(payload, ops.MergeOp):
        return Merge(context, payload, len(node.op.inputs))
    if isinstance(payload, ops.DiffOp):
        from worker.ops.diff import Diff

        return Diff(context, payload, len(node.op.inputs))
    if isinstance(payload, ops.BuildOp):
        from worker.ops.build import unsupported

        return unsupported(payload)
    raise InternalError(f"operation {node.digest} has no payload")


def check_allowed(build: BuildContext, op: ops.ExecOp) -> None:
    """Privileges must be granted by the request (BuildKit util/entitlements: the texts are matched by clients)."""
    if op.network is ops.NetMode.HOST and "network.host" not in build.entitlements:
        raise UserError("network.host is not allowed", hint="grant it with --allow network.host")
    if op.security is ops.SecurityMode.INSECURE and "security.insecure" not in build.entitlements:
        raise UserError("security.insecure is not allowed", hint="grant it with --allow security.insecure")
