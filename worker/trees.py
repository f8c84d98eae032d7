"""From results to files: which layers make a result, are they here, and a directory to read them through.

    stack_of(result)    the layers of a result; a local tree is copied into a layer first
    ensure(stack)       every lazy layer of the stack is fetched and unpacked
    open_stack(stack)   a read-only directory descriptor of the merged tree

A `Trees` belongs to one build: lazy layers are fetched with that build's credentials.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from buildengine.errors import SourceError, StoreError
from buildengine.limits import DISK, offload, still_wanted
from buildengine.tracepoints import reach
from cache.layers import Layer, RemoteBlob
from cache.opened import Cache
from cache.overlay import TreeMount
from solver.vertex import Result
from worker.layers.outcome import one_error
from worker.localtree import LocalTree
from worker.pulls import Pulls
from worker.results import Snapshot, Stack

if TYPE_CHECKING:
    from worker.layers.apply import Applied


class BlobFetcher(Protocol):
    """Brings the blob of a lazy layer into the content store; a blob that is there already costs nothing."""

    @property
    def pulls(self) -> Pulls: ...

    async def fetch(self, layer: Layer) -> None: ...


class Trees:
    def __init__(self, cache: Cache, fetcher: BlobFetcher) -> None:
        self._cache = cache
        self._fetcher = fetcher

    async def stack_of(self, result: Result | None) -> Stack:
        """The layers that make `result`, base first; the empty tree has none."""
        if result is None:
            return ()
        if isinstance(result, Snapshot):
            return result.stack
        assert isinstance(result, LocalTree)
        return await result.stack()

    async def ensure(self, stack: Stack) -> None:
        """Fetch and unpack what is lazy: blobs in parallel, unpacked base first.

        A layer is unpacked on those that it was made on, wherever it lies here: a hard link in it may name a file of
        theirs, and what it hides is theirs.
        """
        layers = self._cache.layers
        lazy = layers.missing(stack)
        if not lazy:
            return
        stacks = layers.own_stacks([layer.id for layer in lazy])
        needed = [id for layer in lazy for id in stacks[layer.id]]
        own, missing = layers.own_stacks(needed), layers.missing(needed)
        here = {layer.id: trio.Event() for layer in missing}

        async def fetch(layer: Layer) -> None:
            await self._fetcher.fetch(layer)
            here[layer.id].set()

        with one_error():
            async with trio.open_nursery() as nursery:
                for layer in missing:
                    nursery.start_soon(fetch, layer)
                for layer in missing:
                    await here[layer.id].wait()
                    await self._unpack(layer, own[layer.id][:-1])

    async def explicit(self, stack: Stack) -> str:
        """The topmost layer of `stack`, as it can lie on other layers too.

        One that came as a blob is not looked into: it may be lazy, and is to stay the very blob.
        """
        *below, id = stack
        layers = self._cache.layers
        layer = layers.get(id)
        return await layers.explicit(id, below) if below and layer.filled and layer.remote is None else id

    async def fetch_blobs(self, layers: Sequence[Layer]) -> None:
        """Only the blobs: what an export needs of an untouched base."""
        with one_error():
            async with trio.open_nursery() as nursery:
                for layer in layers:
                    nursery.start_soon(self._fetcher.fetch, layer)

    async def _unpack(self, layer: Layer, below: Stack) -> None:
        remote = layer.remote
        if remote is None:
            raise StoreError(f"layer {layer.id} has neither files nor an origin", hint="pybuild prune --all")
        filling = await self._cache.layers.fill(layer.id)
        if filling is None:
            return  # another process was faster
        try:
            lowers = self._cache.layers.lowers(below) if below else None
            with self._fetcher.pulls.extracting(remote.digest):
                applied = await offload(self._apply, remote, filling.directory, lowers, limiter=DISK)
            if layer.diff_id is not None and applied.diff_id != layer.diff_id:
                raise SourceError(
                    f"layer {remote.digest} unpacks to {applied.diff_id}, its image config promises {layer.diff_id}",
                    hint="the image is broken: its publisher must push it again",
                )
            reach("layer.unpacked")
            await filling.commit(size=applied.size, marks=applied.marks)
        finally:
            await filling.discard()

    def _apply(self, remote: RemoteBlob, directory: Path, lowers: TreeMount | None) -> Applied:
        from worker.layers.apply import apply

        with self._cache.store.open(remote.digest) as blob:
            try:
                return apply(blob, directory, lowers=lowers, windows=remote.windows, before_each=still_wanted)
            except SourceError as error:
                raise SourceError(f"layer {remote.digest}: {error.message}", hint=error.hint) from error

    @contextmanager
    def open_stack(self, stack: Stack) -> Iterator[int]:
        """A directory descriptor of the merged tree, read-only. All layers must be there (`ensure`)."""
        with self._mounted(stack) as fd:
            yield fd

    def _mounted(self, stack: Stack) -> AbstractContextManager[int]:
        from worker.mounts.tree import open_tree

        return open_tree(self._cache.layers.tree(stack))
