"""Something that is done while something else is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from buildengine.errors import BuildError


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Do `task`, which raises no BuildError, while the block runs. Both have ended afterwards, whatever went wrong in
    the block; its BuildError leaves it as it is, in no group."""
    failure: BuildError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        try:
            yield
        except BuildError as error:
            failure = error
    if failure is not None:
        raise failure
