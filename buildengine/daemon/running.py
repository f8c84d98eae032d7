"""One blocking call of a command as one trio run: signals cancel it, and one error leaves it, never a group."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from buildengine.errors import BuildError, InternalError, leading

_T = TypeVar("_T")
_TICK = 0.1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_to_end(main: Callable[[], Awaitable[_T]], on_tick: Callable[[], None] | None = None) -> _T:
    """Run `main` in trio: SIGINT, SIGTERM and SIGHUP cancel it, and no ExceptionGroup leaves.

    `on_tick` is called about ten times a second meanwhile.
    """
    outcome: list[_T] = []

    async def supervised() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_on_signal)
            if on_tick is not None:
                nursery.start_soon(_tick, on_tick)
            outcome.append(await main())
            nursery.cancel_scope.cancel()

    try:
        trio.run(supervised)
    except BaseExceptionGroup as group:
        raise told(group) from None
    return outcome[0]


async def _end_on_signal(task_status: trio.TaskStatus[None]) -> None:
    """Raise KeyboardInterrupt here, and nowhere in the middle of something else, as Python's own handler would."""
    with ending_signals() as received:
        task_status.started()
        async for _ in received:
            raise KeyboardInterrupt


@contextmanager
def ending_signals() -> Iterator[AsyncIterator[int]]:
    """SIGINT, SIGTERM and SIGHUP, as they come in this block.

    A signal that we were started to ignore (`nohup`, a shell's background job) stays ignored; it may be all of them.
    """
    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:  # trio has no receiver for nothing
        yield _no_signals()
        return
    with trio.open_signal_receiver(*heeded) as received:
        yield received


async def _no_signals() -> AsyncIterator[int]:
    numbers: tuple[int, ...] = ()
    for number in numbers:
        yield number


async def _tick(on_tick: Callable[[], None]) -> None:
    while True:
        await trio.sleep(_TICK)
        on_tick()


def told(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several that failed at once, the one to tell: an interrupt, else the first of the user's errors."""
    error = leading(group, KeyboardInterrupt, BuildError)
    if isinstance(error, KeyboardInterrupt | BuildError):
        return error
    bug = InternalError(f"{type(error).__name__}: {error}")
    bug.__cause__ = error
    return bug
