"""Copying, making and removing files without running anything, in a new layer.

Actions that follow one another work in one tree; the tree is committed when it is an output of the op or another
action wants to read it. Decisions (which action works where) are made from indexes before anything is touched.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TypeVar

from buildengine.errors import BuildError, InvalidDefinition
from buildengine.limits import DISK, UNMOUNT, offload
from buildengine.tracepoints import reach
from cache.layers import NewLayer
from cache.localcheck import check_paths
from cache.localscan import LocalScan
from llb import ops
from llb.patterns import PatternMatcher
from solver.vertex import Result
from worker.context import OpContext
from worker.failures import Failed
from worker.layers import actions as file_actions
from worker.layers import copytree
from worker.layers.copyrules import Reuse
from worker.localtree import LocalTree
from worker.mounts.tree import open_tree
from worker.ops import content, users
from worker.ops.directly import bring_up
from worker.ops.earlier import Earlier
from worker.results import Snapshot, Stack
from worker.trees import Trees

_Ids = tuple[int, int] | None
_T = TypeVar("_T")


async def run(context: OpContext, op: ops.FileOp, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
    """The op's outputs, in order."""
    async with AsyncExitStack() as cleanup:
        running = _Run(context, op, inputs, cleanup)
        for number in range(len(op.actions)):
            await running.action(number)
        outputs = await running.outputs()
    return [Snapshot(context.cache.layers, stack) if stack else None for stack in outputs]


class _Working:
    """A layer that actions write to: `root` is where to write, `view` the tree that names are looked up in."""

    def __init__(self, stack: Stack, layer: NewLayer) -> None:
        self.stack = stack
        self.layer = layer
        self.earlier: Earlier | None = None
        self.direct = False
        self._opened = ExitStack()
        self.root = self.view = -1

    def open(self, trees: Trees, only: ops.Action | None) -> None:
        """Open the tree; for an op that is one copy to where nothing is, the layer's own directory is enough."""
        tree = self.layer.tree
        if isinstance(only, ops.CopyAction) and not only.attempt_unpack and tree.lowers and tree.upper is not None:
            view = self._opened.enter_context(trees.open_stack(self.stack))
            upper = os.open(tree.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._opened.callback(os.close, upper)
            if bring_up(view, upper, only.dest):
                self.root, self.view, self.direct = upper, view, True
                return
            self._opened.close()
        self.root = self.view = self._opened.enter_context(open_tree(tree))

    def close(self) -> None:
        """Let go of the tree: before it is committed, and at the end in any case. Blocks."""
        self._opened.close()

    async def commit(self) -> Stack:
        if self.direct:
            self.close()  # nothing that can be written to is mounted
        else:
            await offload(self.close, limiter=UNMOUNT)
        if self.earlier is not None:
            await offload(self.earlier.note, self.layer.directory, limiter=DISK)
        layer = await self.layer.commit()
        if self.earlier is not None:
            await self.earlier.save(layer)
        return (*self.stack, layer)


class _Run:
    """One execution. Places (inputs first, then actions) hold a stack, a tree that is being written, or a local."""

    def __init__(
        self, context: OpContext, op: ops.FileOp, inputs: Sequence[Result | None], cleanup: AsyncExitStack
    ) -> None:
        self._context = context
        self._actions = op.actions
        self._places: list[Stack | _Working | LocalTree | None] = [
            result.stack if isinstance(result, Snapshot) else result if isinstance(result, LocalTree) else ()
            for result in inputs
        ]
        self._inputs = inputs
        self._first = len(inputs)
        self._cleanup = cleanup

    async def action(self, number: int) -> None:
        action = self._actions[number]
        working = await self._writable(action.input)
        try:
            await self._do(action, working)
        except BuildError:
            if self._context.build.failures.wanted:
                await self._keep(number, working)
            raise
        reach("file.changed")
        self._places.append(working)

    async def outputs(self) -> list[Stack]:
        numbered = {a.output: self._first + n for n, a in enumerate(self._actions) if a.output != ops.NO_OUTPUT}
        return [await self._stack(numbered[output]) for output in sorted(numbered)]

    async def _keep(self, number: int, working: _Working) -> None:
        """What there is when an action fails, for whoever asks."""
        layers = self._context.cache.layers
        stacks = [place if isinstance(place, tuple) else () for place in self._places[self._first :]]
        stacks += [await working.commit(), *[()] * (len(self._actions) - number - 1)]
        failed = Failed(
            inputs=tuple(None if result is None else result.clone() for result in self._inputs),
            mounts=tuple(Snapshot(layers, stack) if stack else None for stack in stacks),
            action=number,
        )
        self._context.build.failures.keep(self._context.reporter.vertex, failed)

    # --- places -------------------------------------------------------------------------------------------

    async def _writable(self, place: int) -> _Working:
        """A tree to write to that shows what is at `place`; an unfinished tree nobody else wants is taken over."""
        if place >= self._first and self._users(place) == 1:
            working = self._places[place]
            if isinstance(working, _Working):
                self._places[place] = None
                return working
        stack = await self._stack(place)
        await self._context.trees.ensure(stack)
        layer = await self._context.cache.layers.create(stack, description=self._context.name)
        self._cleanup.push_async_callback(layer.discard)
        working = _Working(stack, layer)
        self._cleanup.callback(working.close)
        working.open(self._context.trees, self._actions[0].action if len(self._actions) == 1 else None)
        return working

    def _users(self, place: int) -> int:
        readers = sum((a.input == place) + (a.secondary_input == place) for a in self._actions)
        return readers + (self._actions[place - self._first].output != ops.NO_OUTPUT)

    async def _stack(self, place: int) -> Stack:
        if place == ops.NO_INPUT:
            return ()
        found = self._places[place]
        if isinstance(found, _Working):
            found = self._places[place] = await found.commit()
        elif isinstance(found, LocalTree):
            found = self._places[place] = await found.stack()
        if found is None:
            raise InvalidDefinition("a file action uses the result of an action that another one has changed")
        return found

    @asynccontextmanager
    async def _readable(self, place: int) -> AsyncIterator[tuple[int, LocalScan | None]]:
        """A directory to copy from; of a local tree, only what may be seen."""
        found = self._places[place] if place != ops.NO_INPUT else ()
        if isinstance(found, LocalTree):
            scan = await found.scan()
            yield scan.root, scan
            return
        stack = await self._stack(place)
        await self._context.trees.ensure(stack)
        with self._context.trees.open_stack(stack) as root:
            yield root, None

    # --- actions ------------------------------------------------------------------------------------------

    async def _do(self, file_action: ops.FileAction, working: _Working) -> None:
        action = file_action.action
        if isinstance(action, ops.CopyAction):
            await self._copy(action, file_action.secondary_input, working)
        elif isinstance(action, ops.Remove):
            await offload(file_actions.remove, working.root, action, limiter=DISK)
        else:
            owner = await self._owner(action.owner, working)
            do: Callable[..., None] = _MAKERS[type(action)]
            await offload(do, working.root, action, owner, limiter=DISK)

    async def _copy(self, action: ops.CopyAction, source: int, working: _Working) -> None:
        owner = await self._owner(action.owner, working)
        async with self._readable(source) as (root, scan):
            with self._earlier(action, source, scan, working) as reuse:
                await copytree.copy(
                    root,
                    working.root,
                    action,
                    owner=owner,
                    source_owner=None if scan is None else (0, 0),
                    include=PatternMatcher(action.include_patterns) if action.include_patterns else None,
                    exclude=PatternMatcher(action.exclude_patterns) if action.exclude_patterns else None,
                    visible=scan,
                    reuse=reuse,
                )
            if scan is not None:
                check_paths(scan, (content.copied(action),))

    @contextmanager
    def _earlier(
        self, action: ops.CopyAction, source: int, scan: LocalScan | None, working: _Working
    ) -> Iterator[Reuse | None]:
        """Files of the layer that this very copy made last time, if there are enough of them to matter."""
        tree = self._places[source] if scan is not None else None  # without a scan `source` may be no place at all
        if scan is None or not isinstance(tree, LocalTree) or not working.direct:
            yield None
            return
        earlier = Earlier(self._context.cache, action, tree, scan)
        if not earlier.worthwhile:
            yield None
            return
        working.earlier = earlier
        with earlier.reuse() as reuse:
            yield reuse

    async def _owner(self, owner: ops.Owner | None, working: _Working) -> _Ids:
        """Ids of an owner; names are looked up in the tree of the input they name.

        Without a group it is the account's; for a number the same number (BuildKit, llbsolver/ops/user_linux.go).
        """
        if owner is None:
            return None
        if isinstance(owner.user, ops.NamedUser):
            uid, gid = await self._look_up(owner.user, working, users.find_account)
        else:
            uid = gid = owner.user or 0
        if isinstance(owner.group, ops.NamedUser):
            gid = await self._look_up(owner.group, working, users.find_group)
        elif owner.group is not None:
            gid = owner.group
        return uid, gid

    async def _look_up(self, who: ops.NamedUser, working: _Working, find: Callable[[int, str], _T]) -> _T:
        if who.input == ops.NO_INPUT or self._places[who.input] is None:
            return find(working.view, who.name)
        stack = await self._stack(who.input)
        await self._context.trees.ensure(stack)
        with self._context.trees.open_stack(stack) as root:
            return find(root, who.name)


_MAKERS: dict[type, Callable[..., None]] = {
    ops.MkDir: file_actions.mkdir,
    ops.MkFile: file_actions.mkfile,
    ops.Symlink: file_actions.symlink,
}
