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
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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

    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        trio.run(supervised)
    except BaseExceptionGroup as group:
        raise told(group) from None
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that is not Python's
                signal.signal(number, handler)
    return outcome[0]


async def _end_on_signal(task_status: trio.TaskStatus[None]) -> None:
    """Raise KeyboardInterrupt here, and nowhere in the middle of something else, as Python's own handler would."""
    with ending_signals() as received:
        task_status.started()
        async for _ in received:
            break
        else:
            return
    end_with_third_signal()
    raise KeyboardInterrupt


def end_with_third_signal() -> None:
    """After a first signal that did not end the process: the next is one too many, the third does what it does to any
    program. What is to be ended may wait for what does not move, such as a pipe that nobody reads.

    Two in a row mean nothing: timeout(1) sends one to the process and one to its group. `docker buildx` takes as many.
    """
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]

    def second(_number: int, _frame: object) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_DFL)

    for each in heeded:
        signal.signal(each, second)


@contextmanager
def ending_signals() -> Iterator[AsyncIterator[int]]:
    """SIGINT, SIGTERM and SIGHUP, as they come in this block.

    A signal that we were started to ignore (`nohup`, a shell's background job) stays ignored; it may be all of them.
    """
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
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
