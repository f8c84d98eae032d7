"""One blocking call of a command as one asyncio run: signals cancel it, and then it raises KeyboardInterrupt."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")
_TICK = 0.1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_to_end(main: Callable[[], Awaitable[_T]], on_tick: Callable[[], None] | None = None) -> _T:
    """Run `main`: SIGINT, SIGTERM and SIGHUP cancel it, unless we were started to ignore them.

    `on_tick` is called about ten times a second meanwhile.
    """
    with asyncio.Runner() as runner:
        return runner.run(_supervised(main, on_tick))


async def _supervised(main: Callable[[], Awaitable[_T]], on_tick: Callable[[], None] | None) -> _T:
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(main())
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        work.cancel()

    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        loop.add_signal_handler(number, interrupt)
    ticking = asyncio.create_task(_tick(on_tick)) if on_tick is not None else None
    try:
        return await work
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if ticking is not None:
            ticking.cancel()
        for number in heeded:
            loop.remove_signal_handler(number)


async def _tick(on_tick: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_TICK)
        on_tick()
