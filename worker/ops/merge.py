"""The merge op: one stack of layers on another. It copies nothing."""

from __future__ import annotations

from collections.abc import Sequence

from llb import ops
from solver.vertex import CacheMap, Dep, Result
from worker.context import OpContext
from worker.ops.keys import key_digest
from worker.results import Snapshot, Stack


class Merge:
    """`solver.Op`: the layers of all inputs, the last input's on top."""

    is_bound = True

    def __init__(self, context: OpContext, op: ops.MergeOp, count: int) -> None:
        self._context = context
        self._op = op
        self._count = count

    async def cache_map(self) -> CacheMap:
        return CacheMap(digest=key_digest("merge", self._op), deps=(Dep(),) * self._count)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        trees = self._context.trees
        placed = place([await trees.stack_of(inputs[index] if index >= 0 else None) for index in self._op.inputs])
        below: Stack = ()
        merged: list[str] = []
        for own in placed:
            below = (*below, own[-1])
            # What a layer replaces and hides is what it was made on, and nothing of the inputs that lie below it here.
            merged.append(own[-1] if own == below else await trees.explicit(own))
        return [Snapshot(self._context.cache.layers, tuple(merged)) if merged else None]


def place(stacks: Sequence[Stack]) -> list[Stack]:
    """The layers of a merge, base first, each as the stack of its input up to it.

    An input that begins with all that is below adds its rest. Otherwise a layer may come again: what it had hidden
    below may be shown by what lies between, and a difference to this merge begins with what the merge begins with.
    """
    merged: Stack = ()
    placed: list[Stack] = []
    for stack in stacks:
        start = len(merged) if stack[: len(merged)] == merged else 0
        placed += [stack[: position + 1] for position in range(start, len(stack))]
        merged = (*merged, *stack[start:])
    return placed
