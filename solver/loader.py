"""From a graph of LLB operations to vertices that can be solved.

What executes an operation is asked of `resolve_op`; here no operation is looked into. It does not recurse: a graph
may be deeper than any stack.
"""

from __future__ import annotations

from collections.abc import Callable

from buildengine.digest import Digest
from llb.graph import Graph, Node
from llb.ops import BuildOp, OpMetadata
from solver.reporter import Reporter
from solver.vertex import Edge, Op, Vertex, VertexOptions

ResolveOp = Callable[[Node, Reporter], Op]
"""The op of a node, for one job. What it has to say it tells the reporter."""


def load(graph: Graph, resolve_op: ResolveOp) -> Edge:
    """The graph's result as an edge of vertices."""
    vertices: dict[Digest, Vertex] = {}
    for digest, node in graph.nodes.items():
        reporter = Reporter(digest)
        vertices[digest] = Vertex(
            digest=digest,
            name=node.name,
            op=resolve_op(node, reporter),
            inputs=tuple([Edge(vertex=vertices[one.digest], index=one.index) for one in node.op.inputs]),
            options=_options(node),
            reporter=reporter,
            occupy_slot=not isinstance(node.op.payload, BuildOp),
        )
    return Edge(vertex=vertices[graph.root.digest], index=graph.root.index)


def _options(node: Node) -> VertexOptions:
    metadata: OpMetadata = node.metadata
    return VertexOptions(
        ignore_cache=metadata.ignore_cache,
        export_cache=metadata.export_cache,
        description=metadata.description,
        progress_group=metadata.progress_group,
        locations=node.locations,
    )
