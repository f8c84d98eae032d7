"""Several things at once, for the edge of the frontend: results in order, and one error rather than a group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from buildengine.errors import BuildError

T = TypeVar("T")


async def gather(tasks: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """What each task returns. The first BuildError ends the others and is raised."""
    results: dict[int, T] = {}
    failures: list[BuildError] = []

    async def run(position: int, task: Callable[[], Awaitable[T]]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # a failure that awaits nothing is told before the next begins
        try:
            results[position] = await task()
        except BuildError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for position, task in enumerate(tasks):
            nursery.start_soon(run, position, task)
    if failures:
        raise failures[0]
    return [results[position] for position in range(len(tasks))]
