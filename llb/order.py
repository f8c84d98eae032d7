"""Inputs before users, for any graph, without recursion: chains of ten thousand steps are ordinary."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


class Cycle(Exception):
    """The graph leads from `node` back to it."""

    def __init__(self, node: object) -> None:
        super().__init__(node)
        self.node = node


def postorder(root: T, inputs: Callable[[T], Iterable[T]]) -> list[T]:
    """Everything that `root` needs, each once, every node after its inputs and `root` last. Raises Cycle.

    >>> postorder("c", {"a": "", "b": "a", "c": "ab"}.__getitem__)
    ['a', 'b', 'c']
    """
    finished: dict[T, bool] = {root: False}  # False while a node is on the path from the root
    path: list[tuple[T, Iterator[T]]] = [(root, iter(inputs(root)))]
    order: list[T] = []
    while path:
        node, remaining = path[-1]
        for needed in remaining:
            state = finished.get(needed)
            if state is None:
                finished[needed] = False
                path.append((needed, iter(inputs(needed))))
                break
            if not state:
                raise Cycle(needed)
        else:
            finished[node] = True
            order.append(node)
            path.pop()
    return order
