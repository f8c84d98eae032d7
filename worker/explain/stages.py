"""What is different in what a step takes from another step: found out when somebody asks, if both trees are there.

For these no lists are kept. The layers of then are often in the store still, and the digests of their files are
remembered with them, so that only names and modes are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.limits import HASH, offload
from cache.opened import Cache
from cache.selection import Selector
from llb.graph import Node
from worker.explain.comparison import Comparison
from worker.explain.differences import Difference
from worker.explain.files import Listing, list_tree, selected
from worker.explain.selection import files_changed
from worker.results import Snapshot, Stack
from worker.trees import Trees

MOST = 20  # inputs of a build that are looked into


async def changed_in_stages(
    compared: Comparison, nodes: Mapping[Digest, Node], cache: Cache, trees: Trees
) -> dict[int, list[Difference]]:
    """By the position of a step, what is different in its inputs."""
    found: dict[int, list[Difference]] = {}
    for position, index, before, now in [*compared.taken()][:MOST]:
        selectors = selected(nodes[Digest(compared.now[position].vertex)].op, index)
        lists = [await _list(stack, selectors, cache, trees) for stack in (before, now)]
        if lists[0] is not None and lists[1] is not None:
            found.setdefault(position, []).append(files_changed(lists[0], lists[1], ((), ())))
    return found


async def _list(stack: Stack, selectors: Sequence[Selector], cache: Cache, trees: Trees) -> Listing | None:
    """None where the tree is not there any more, or not yet."""
    try:
        with _held(stack, cache) as is_here:
            if not is_here:
                return None
            with trees.open_stack(stack) as root:
                return await offload(list_tree, cache.contenthash.tree(stack, root), selectors, limiter=HASH)
    except (BuildError, OSError):
        return None


@contextmanager
def _held(stack: Stack, cache: Cache) -> Iterator[bool]:
    snapshot = Snapshot(cache.layers, stack)
    try:
        yield all(map(cache.layers.exists, stack)) and not cache.layers.missing(stack)
    finally:
        snapshot.release()
