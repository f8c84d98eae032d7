"""The file op: what its cache key is made of. Doing it is `worker.ops.fileactions`', imported when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cache.selection import Selector
from llb import ops
from solver.vertex import CacheMap, Dep, Result
from worker.context import OpContext
from worker.ops import content
from worker.ops.keys import key_digest


class File:
    """`solver.Op` for one file op."""

    is_bound = True

    def __init__(self, context: OpContext, op: ops.FileOp, *, input_count: int) -> None:
        self._context = context
        self._op = op
        self._input_count = input_count

    async def cache_map(self) -> CacheMap:
        """A copy's source counts by content, so its name is left out of the key but for its last component."""
        actions = tuple(replace(a, action=_key_action(a.action)) for a in self._op.actions)
        return CacheMap(
            digest=key_digest("file", actions),
            deps=tuple(self._dep(index) for index in range(self._input_count)),
        )

    def _dep(self, index: int) -> Dep:
        selectors = selected(self._op, index)
        return content.dep(self._context, selectors, index) if selectors else Dep()

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        from worker.ops.fileactions import run

        return await run(self._context, self._op, inputs)


def selected(op: ops.FileOp, index: int) -> tuple[Selector, ...]:
    """What decides of an input that counts by its content; nothing of one that does not."""
    if any(action.input == index for action in op.actions):
        return ()
    copies = [a.action for a in op.actions if a.secondary_input == index]
    return tuple(dict.fromkeys(content.copied(copy) for copy in copies if isinstance(copy, ops.CopyAction)))


def _key_action(action: ops.Action) -> ops.Action:
    if not isinstance(action, ops.CopyAction):
        return action
    base = action.src.rstrip("/").rpartition("/")[2]
    return replace(action, src=base, include_patterns=(), exclude_patterns=(), required_paths=())
