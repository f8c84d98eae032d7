"""Which painter a build gets, and the build's events to it, one by one.

    with open_display("auto", sys.stderr) as display:
        builder.build(request, display.event, display.tick)

Whatever happens, the display is closed with what became of the build and the terminal is usable afterwards. A
reader that goes away (`pybuild build . 2>&1 | head`) does not stop the build: it goes on, unseen.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol, TypeVarTuple

from buildengine.cli.progress.model import Change, Trace
from buildengine.events import Event

MODES = ("auto", "tty", "plain", "rawjson", "quiet", "none")
_KEPT_PRINTED = 10  # lines of a step's output that the report of a failure repeats
_KEPT_UNSEEN = 200  # and that it shows where they have not been printed

_Ts = TypeVarTuple("_Ts")


class Painter(Protocol):
    def event(self, event: Event, change: Change | None) -> None:
        """`change` is what `event` did to the trace; None when nothing that is shown."""

    def tick(self) -> None:
        """Some time has passed."""

    def close(self, outcome: str) -> None:
        """The last call. Every step has ended by now."""


class Blank:
    """Paints nothing."""

    def event(self, event: Event, change: Change | None) -> None: ...

    def tick(self) -> None: ...

    def close(self, outcome: str) -> None: ...


class Display:
    """Takes events in and has them painted. `trace` is what is known of the build."""

    def __init__(self, trace: Trace, painter: Painter, clock: Callable[[], float]) -> None:
        self.trace = trace
        self._painter = painter
        self._clock = clock

    def event(self, event: Event) -> None:
        self._paint(self._painter.event, event, self.trace.apply(event))

    def tick(self) -> None:
        self._paint(self._painter.tick)

    def close(self, outcome: str) -> None:
        for change in self.trace.cancel(self._clock()):
            self._paint(self._painter.event, change.event, change)
        self._paint(self._painter.close, outcome)

    def _paint(self, paint: Callable[[*_Ts], None], *args: *_Ts) -> None:
        try:
            paint(*args)
        except OSError as error:
            if not isinstance(error, BrokenPipeError) and error.errno != errno.EIO:  # EIO: the terminal was closed
                raise
            self._painter = Blank()


@contextmanager
def open_display(mode: str, stream: IO[str], *, clock: Callable[[], float] = time.time) -> Iterator[Display]:
    """A display in `mode` (one of MODES) on `stream`."""
    mode = resolve(mode, stream)
    trace = Trace(keep=_KEPT_PRINTED if mode == "plain" else _KEPT_UNSEEN)
    display = Display(trace, _painter(mode, trace, stream, clock), clock)
    outcome = "FAILED"
    try:
        yield display
        outcome = "FINISHED"
    except KeyboardInterrupt:
        outcome = "CANCELED"
        raise
    finally:
        display.close(outcome)


def resolve(mode: str, stream: IO[str]) -> str:
    """What `auto` means on `stream`; any other mode as it is."""
    if mode != "auto":
        return mode
    return "tty" if is_terminal(stream) else "plain"


def is_terminal(stream: IO[str]) -> bool:
    """Whether lines on `stream` can be painted anew."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _painter(mode: str, trace: Trace, stream: IO[str], clock: Callable[[], float]) -> Painter:
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    if mode == "tty":
        from buildengine.cli.progress.tty import TtyPainter, open_console  # rich: 20 ms

        return TtyPainter(trace, open_console(stream), clock)
    if mode == "plain":
        from buildengine.cli.progress.plain import PlainPainter

        return PlainPainter(trace, write, clock)
    if mode == "rawjson":
        from buildengine.cli.progress.rawjson import RawJsonPainter

        return RawJsonPainter(write)
    return Blank()
