"""The merge op: one stack of layers on another. It copies nothing."""

from __future__ import annotations

from collections.abc import Sequence

from llb import ops
from solver.vertex import CacheMap, Dep, Result
from worker.context import OpContext
from worker.ops.keys import key_digest
from worker.results import Snapshot, Stack


class Merge:
    """`solver.Op`: the layers of all inputs, the last input's on top.

    A layer that appears again stays where it is topmost: below, what it holds would be hidden by itself.
    """

    is_bound = True

    def __init__(self, context: OpContext, op: ops.MergeOp, count: int) -> None:
        self._context = context
        self._op = op
        self._count = count

    async def cache_map(self) -> CacheMap:
        return CacheMap(digest=key_digest("merge", self._op), deps=(Dep(),) * self._count)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        trees = self._context.trees
        stacks = [await trees.stack_of(inputs[index] if index >= 0 else None) for index in self._op.inputs]
        merged = await self._explicit(merge_stacks(stacks), stacks)
        return [Snapshot(self._context.cache.layers, merged) if merged else None]

    async def _explicit(self, merged: Stack, stacks: Sequence[Stack]) -> Stack:
        """What a layer replaces and hides is what it was made on, and nothing of the inputs that lie below it here."""
        own = {id: stack[: position + 1] for stack in stacks for position, id in enumerate(stack)}
        trees = self._context.trees
        return tuple(
            [
                id if own[id] == merged[: position + 1] else await trees.explicit(own[id])
                for position, id in enumerate(merged)
            ]
        )


def merge_stacks(stacks: Sequence[Stack]) -> Stack:
    """Concatenated, without immediate repetition: an input that begins with all that is below adds its rest."""
    merged: list[str] = []
    for stack in stacks:
        rest = stack[len(merged) :] if merged and stack[: len(merged)] == tuple(merged) else stack
        merged.extend(rest)
    topmost_first = dict.fromkeys(reversed(merged))
    return tuple(reversed(topmost_first))
