"""From LLB graphs to vertices, and graphs of 10,000 of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from buildengine.digest import Digest
from buildengine.errors import Location, SourceRange
from buildengine.events import Event, ProgressGroup
from llb.graph import Graph, Node
from llb.ops import BuildOp, ExecOp, Input, Meta, Op, OpMetadata, Payload, SourceOp
from solver.cachekey import root_key
from solver.job import open_job
from solver.loader import load
from solver.reporter import Reporter
from solver.scheduler import open_scheduler
from solver.vertex import CacheMap, Edge, InputKeys, Result
from tests.fakes.solver_vertices import CountingStore, Ledger, unwrap

SIZE = 10_000


class Sum:
    """The sum of the inputs and one."""

    is_bound = False

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self._digest = Digest.sha256(node.name.encode())
        self._ledger = ledger
        self.executed = False

    async def cache_map(self) -> CacheMap:
        return CacheMap(digest=self._digest)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        self.executed = True
        return [self._ledger.new(1 + sum([unwrap(one) for one in inputs]))]


def node(name: str, *inputs: Node, payload: Payload | None = None, metadata: OpMetadata | None = None) -> Node:
    payload = payload or SourceOp(identifier=name)
    op = Op(inputs=tuple([Input(digest=one.digest) for one in inputs]), payload=payload)
    return Node(digest=Digest.sha256(name.encode()), op=op, name=name, metadata=metadata or OpMetadata())


def graph(*nodes: Node) -> Graph:
    """The last node is the result."""
    return Graph(nodes={one.digest: one for one in nodes}, root=Input(digest=nodes[-1].digest))


def chain(size: int) -> Graph:
    nodes = [node("0")]
    for number in range(1, size):
        nodes.append(node(str(number), nodes[-1]))
    return graph(*nodes)


def wide(size: int) -> Graph:
    nodes = [node(str(number)) for number in range(size - 1)]
    return graph(*nodes, node("top", *nodes))


def test_a_node_becomes_a_vertex_with_its_name_options_and_inputs() -> None:
    metadata = OpMetadata(
        ignore_cache=True,
        description={"llb.customname": "[1/2] RUN true"},
        export_cache=False,
        progress_group=ProgressGroup(id="g", name="group", weak=True),
    )
    base = node("docker-image://busybox")
    location = Location(filename="Dockerfile", ranges=(SourceRange(start_line=1, end_line=1),))
    run = node("[1/2] RUN true", base, payload=ExecOp(meta=Meta(args=("true",)), mounts=()), metadata=metadata)
    run = Node(digest=run.digest, op=run.op, name=run.name, metadata=metadata, locations=(location,))
    reporters: dict[str, Reporter] = {}
    ledger = Ledger()

    def resolve(node: Node, reporter: Reporter) -> Sum:
        reporters[node.digest] = reporter
        return Sum(node, ledger)

    edge = load(graph(base, run), resolve)
    vertex = edge.vertex
    assert (edge.index, vertex.digest, vertex.name) == (0, run.digest, "[1/2] RUN true")
    assert vertex.options.ignore_cache
    assert vertex.options.export_cache is False
    assert vertex.options.description == metadata.description
    assert vertex.options.progress_group == ProgressGroup(id="g", name="group", weak=True)
    assert vertex.options.locations == (location,)
    assert [one.vertex.digest for one in vertex.inputs] == [base.digest]
    assert vertex.reporter is reporters[run.digest]
    assert vertex.reporter.vertex == run.digest


def test_what_is_used_twice_is_one_vertex_and_a_nested_build_occupies_no_slot() -> None:
    ledger = Ledger()
    base = node("base")
    left, right = node("left", base), node("right", base, payload=BuildOp(builder=-1))
    edge = load(graph(base, left, right, node("top", left, right)), lambda one, _: Sum(one, ledger))
    first, second = [one.vertex for one in edge.vertex.inputs]
    assert first.inputs[0].vertex is second.inputs[0].vertex
    assert (first.occupy_slot, second.occupy_slot) == (True, False)


async def fill(store: CountingStore, graph: Graph, ledger: Ledger) -> None:
    """As a first build would, without building."""
    keys: dict[Digest, str] = {}
    for digest, one in graph.nodes.items():
        op = Digest.sha256(one.name.encode())
        inputs = [InputKeys(selector="", keys=(keys[each.digest],)) for each in one.op.inputs]
        keys[digest] = store.add_key(op, 0, inputs) if inputs else root_key(op, 0)
        result = ledger.new("from the cache")
        await store.save(keys[digest], result)
        result.release()


@pytest.mark.parametrize("make", [chain, wide])
async def test_ten_thousand_vertices_load_and_solve_from_cache_quickly(make: object) -> None:
    assert callable(make)
    ledger, store = Ledger(), CountingStore()
    big = make(SIZE)
    assert len(big.nodes) == SIZE
    await fill(store, big, ledger)
    ops: list[Sum] = []

    def resolve(node: Node, _reporter: Reporter) -> Sum:
        ops.append(Sum(node, ledger))
        return ops[-1]

    told: list[Event] = []
    began = time.process_time()
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job", told.append) as job:
        (result,) = await job.solve([load(big, resolve)])
        assert unwrap(result) == "from the cache"
    assert time.process_time() - began < 5  # seconds of CPU; about 1.5
    assert not any(op.executed for op in ops)
    assert store.loads == 1
    assert len(told) == 2 * SIZE  # announced and cached, each
    store.close()
    assert ledger.live == 0


@pytest.mark.parametrize("make", [chain, wide])
async def test_a_graph_deeper_than_the_stack_executes(make: object) -> None:
    assert callable(make)
    ledger, store = Ledger(), CountingStore()
    edge: Edge = load(make(3000), lambda one, _: Sum(one, ledger))
    async with open_scheduler(store) as scheduler, open_job(scheduler, "job") as job:
        (result,) = await job.solve([edge])
        assert unwrap(result) == 3000
    store.close()
    assert ledger.live == 0
