"""The diff op: what turns the lower tree into the upper one, as layers.

Where the upper tree was made on the lower one, the difference is the layers on top, without what is no change in them.
Otherwise a writable tree on the lower one is made equal to the upper one, and what that took is the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.limits import DISK, offload
from llb import ops
from solver.vertex import CacheMap, Dep, Result
from worker.context import OpContext
from worker.layers.equalize import make_equal
from worker.mounts.tree import open_tree
from worker.ops.keys import key_digest
from worker.results import Snapshot, Stack


class Diff:
    """`solver.Op`. A missing input is the empty tree."""

    is_bound = True

    def __init__(self, context: OpContext, op: ops.DiffOp, count: int) -> None:
        self._context = context
        self._op = op
        self._count = count

    async def cache_map(self) -> CacheMap:
        return CacheMap(digest=key_digest("diff", self._op), deps=(Dep(),) * self._count)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        trees = self._context.trees
        lower, upper = [
            await trees.stack_of(inputs[index] if index >= 0 else None) for index in (self._op.lower, self._op.upper)
        ]
        if upper[: len(lower)] == lower:
            added = range(len(lower), len(upper))
            difference = tuple([await trees.explicit(upper[: position + 1]) for position in added])
        else:
            difference = await self._compared(lower, upper)
        return [Snapshot(self._context.cache.layers, difference) if difference else None]

    async def _compared(self, lower: Stack, upper: Stack) -> Stack:
        trees, layers = self._context.trees, self._context.cache.layers
        await trees.ensure(lower)
        await trees.ensure(upper)
        layer = await layers.create(lower, description=self._context.name)
        try:
            with open_tree(layer.tree) as target, trees.open_stack(upper) as wanted:
                await offload(make_equal, target, wanted, limiter=DISK)
            return (await layer.commit(),)
        finally:
            await layer.discard()
