"""A computation that many wait for and that runs once.

It starts when the first waiter joins. When the last one has left it is cancelled, and it ends before it can start
again. What it returns or raises is kept: whoever joins later gets the same. A cancellation is not kept, nor an
error that came of one.

Waiters are no tasks: they are called back. So a graph of 10,000 edges costs a task for each computation that is
going on, and none for waiting. It knows nothing of edges.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from buildengine.values import dataclass

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_T]):
    """What a computation came to."""

    value: _T | None = None
    error: Exception | None = None


Deliver = Callable[[Outcome[_T]], None]


class Once(Generic[_T]):
    __slots__ = ("_compute", "_ended", "_nursery", "_scope", "_waiters", "outcome")

    def __init__(self, nursery: trio.Nursery, compute: Callable[[], Awaitable[_T]]) -> None:
        self._nursery = nursery
        self._compute = compute
        self._waiters: dict[Hashable, Deliver[_T]] = {}
        self._scope: trio.CancelScope | None = None
        self._ended: trio.Event | None = None
        self.outcome: Outcome[_T] | None = None

    @property
    def ending(self) -> bool:
        """Cancelled, and not yet at its end."""
        return self._scope is not None and self._scope.cancel_called

    def join(self, waiter: Hashable, deliver: Deliver[_T]) -> None:
        """Call `deliver` with the outcome: now, if it is there, else once when it comes."""
        if self.outcome is not None:
            deliver(self.outcome)
            return
        self._waiters[waiter] = deliver
        if self._scope is None:
            self._start()

    def leave(self, waiter: Hashable) -> None:
        """`waiter` is not called any more. Without waiters the computation is cancelled."""
        if self._waiters.pop(waiter, None) is not None and not self._waiters and self._scope is not None:
            self._scope.cancel()

    async def wait_ended(self) -> None:
        """Until what was cancelled is at its end; at once if nothing was."""
        if self.ending:
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()

    def _start(self) -> None:
        self._scope = trio.CancelScope()
        self._nursery.start_soon(self._run, self._scope)

    async def _run(self, scope: trio.CancelScope) -> None:
        outcome: Outcome[_T] | None = None
        try:
            with scope:
                try:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    outcome = Outcome(value=await self._compute())
                except Exception as error:
                    # An op whose process was killed by the cancellation may well say that its process failed.
                    outcome = None if scope.cancel_called else Outcome(error=error)
        finally:
            self._scope = None
            self.outcome = outcome
            if self._ended is not None:
                self._ended.set()
                self._ended = None
        if outcome is not None:
            waiters, self._waiters = self._waiters, {}
            for deliver in waiters.values():
                deliver(outcome)
        elif self._waiters:  # somebody joined after the cancellation
            self._start()
