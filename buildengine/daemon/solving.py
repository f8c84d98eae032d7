"""From definitions to results within one build: loaded, solved by its job, held until the job ends."""

from __future__ import annotations

from frontends.gateway import FrontendResult
from llb import graph, ops
from llb.definition import Definition
from solver.job import Job
from solver.loader import load
from solver.vertex import Edge, Result
from worker.context import BuildContext
from worker.exporters.image import PlatformImage
from worker.worker import renew_cache_mounts, resolver


class Solving:
    """One build's way to the solver."""

    def __init__(self, context: BuildContext, job: Job) -> None:
        self.context = context
        self._job = job

    async def solve(self, definition: Definition) -> Result | None:
        """The result of a definition; None is the empty tree."""
        if definition.is_scratch:
            return None
        return (await self._job.solve([await self._load(definition)]))[0]

    async def results(self, result: FrontendResult) -> list[PlatformImage]:
        """All platforms at once, in one graph: what they share is solved once."""
        solvable = [r for r in result.results if r.definition is not None and not r.definition.is_scratch]
        edges = [await self._load(r.definition) for r in solvable if r.definition is not None]
        solved = dict(zip((id(r) for r in solvable), await self._job.solve(edges), strict=True))
        return [
            PlatformImage(
                platform=r.platform, stack=await self.context.trees.stack_of(solved.get(id(r))), config=r.config
            )
            for r in result.results
        ]

    async def _load(self, definition: Definition) -> Edge:
        loaded = graph.load(definition)
        if any(isinstance(n.op.payload, ops.ExecOp) and n.metadata.ignore_cache for n in loaded.nodes.values()):
            await self.context.runtime()  # a step will run for certain: its launcher starts while the rest is looked up
        await renew_cache_mounts(self.context, loaded)
        return load(loaded, resolver(self.context))
