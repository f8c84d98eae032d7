"""What an op leaves behind: a `Snapshot`, that is a stack of layers, held.

A Snapshot is a counted reference in the sense of `solver.vertex.Result`. Its layers may still be lazy: a
descriptor at a registry and no files. Whoever needs the files asks `worker.trees`. The other result is
`worker.localtree.LocalTree`: a directory of the user's that nobody has read yet.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from cache.layers import Layers

Stack = tuple[str, ...]


class Snapshot:
    """A tree as a stack of layer ids, base first. Holding one keeps every layer of it from being pruned."""

    __slots__ = ("_layers", "_released", "stack")

    def __init__(self, layers: Layers, stack: Stack) -> None:
        self._layers = layers
        self._released = False
        self.stack = stack
        layers.hold(stack)

    def clone(self) -> Snapshot:
        return Snapshot(self._layers, self.stack)

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._layers.release(self.stack)

    def __repr__(self) -> str:
        return f"Snapshot({', '.join(layer[:8] for layer in self.stack)})"


async def filled(
    layers: Layers, fill: Callable[[int], Awaitable[object]], *, kind: str = "regular", description: str
) -> Snapshot:
    """A new layer of whatever `fill` puts into the directory of which it gets a descriptor; none if that fails."""
    layer = await layers.create((), kind=kind, description=description)
    try:
        directory = os.open(layer.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await fill(directory)
        finally:
            os.close(directory)
        return Snapshot(layers, (await layer.commit(),))
    finally:
        await layer.discard()
