"""How often something is tried again, and when: after each of some delays, from the first again while it moves.

patience = Patience(delays)
while True:
    try:
        return await attempt()
    except SourceError as error:
        await patience.wait_after(error)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from buildengine.errors import SourceError
from worker.registry.errors import Damaged, RegistryRefused, deserves_retry

_MAX_DAMAGED = 3  # attempts more, where an answer made no sense: a server that lies does not stop
_MAX_SLOW = 30  # attempts one after the other that bring less than _FAR: a server that drips is not waited for for ever
_FAR = 1 << 20
_T = TypeVar("_T")


class Patience:
    """What is left of the attempts at one thing. `delays` are seconds before each further one."""

    def __init__(self, delays: tuple[float, ...]) -> None:
        self._delays = delays
        self._left = iter(delays)
        self._damaged = 0
        self._slow = 0

    async def wait_after(self, error: SourceError, *, moved: int = 0) -> None:
        """Return when the next attempt may begin; raise `error` when none would help, or there were enough.

        `moved` are the bytes that the attempt brought before it failed.
        """
        self._damaged += isinstance(error, Damaged)
        self._slow = 0 if moved >= _FAR else self._slow + 1
        if moved > 0:
            self._left = iter(self._delays)
        delay = next(self._left, None)
        if delay is None or self._damaged > _MAX_DAMAGED or self._slow >= _MAX_SLOW or not deserves_retry(error):
            raise error
        await trio.sleep(wait_before_retry(error, delay))


async def retrying(attempt: Callable[[], Awaitable[_T]], delays: tuple[float, ...]) -> _T:
    """What `attempt` returns, tried again after each of `delays` while its error deserves that."""
    patience = Patience(delays)
    while True:
        try:
            return await attempt()
        except SourceError as error:
            await patience.wait_after(error)


def wait_before_retry(error: SourceError, delay: float) -> float:
    """`delay`, or what the registry asked for when that is longer. In seconds."""
    return max(delay, error.retry_after if isinstance(error, RegistryRefused) else 0.0)
