"""Progress on a terminal: what is finished scrolls up, what runs is painted anew below it.

     => [internal] load build definition from Dockerfile                            0.0s
     => CACHED [1/3] FROM docker.io/library/debian:12                               0.0s
    [+] Building 3.2s (2/4)
     => [2/3] RUN make                                                              3.1s
     => => # gcc -c main.c
     => [3/3] COPY . /src                                                           0.2s

So a build may have any number of steps, each is painted once, and the terminal keeps them all. This is the only
module that imports rich. The cursor is never hidden: after `kill -9` nobody would bring it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live_render import LiveRender
from rich.text import Text

from buildengine.cli.progress.lines import safe
from buildengine.cli.progress.model import Change, Step, Trace
from buildengine.events import Event, Outcome, StatusEvent, VertexEvent
from buildengine.units import show_progress

_PERIOD = 0.1  # seconds between two paintings
_TAIL = 6  # lines of output that a running step shows where there is room
_STYLES = {Outcome.DONE: "blue", Outcome.CACHED: "cyan", Outcome.FAILED: "red", Outcome.CANCELED: "yellow"}
_WORDS = {Outcome.CACHED: "CACHED ", Outcome.FAILED: "ERROR ", Outcome.CANCELED: "CANCELED "}


def open_console(stream: IO[str]) -> Console:
    return Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False)


class TtyPainter:
    def __init__(self, trace: Trace, console: Console, clock: Callable[[], float]) -> None:
        self._trace = trace
        self._console = console
        self._clock = clock
        self._painted = clock()  # nothing to see in the first moment: most builds of cached steps are over by then
        self._running: dict[Step, None] = {}  # in the order in which they started
        self._finished: list[Text] = []  # since the last painting
        self._ended: dict[Step, tuple[Outcome, int]] = {}  # what was painted of an end: outcome, number of runs
        self._frame = LiveRender("", vertical_overflow="crop")

    def event(self, event: Event, change: Change | None) -> None:
        if change is not None and isinstance(event, VertexEvent):
            step = change.step
            if step.finished:
                self._finish(step)
            elif step.running:
                self._running[step] = None
        self.tick()

    def tick(self) -> None:
        if self._clock() - self._painted >= _PERIOD:
            self._paint([self._header(), *self._rows()])

    def close(self, outcome: str) -> None:
        """Leave the steps and one line that sums up."""
        self._running.clear()
        with self._console:
            self._paint([self._header(outcome)])
            self._console.line()

    def _finish(self, step: Step) -> None:
        self._running.pop(step, None)
        end = (step.outcome, len(step.runs))
        if self._ended.get(step) != end:
            self._ended[step] = end
            self._finished += self._end_lines(step)

    def _paint(self, frame: list[Text]) -> None:
        self._painted = self._clock()
        with self._console:  # one write, so that nothing flickers
            self._console.control(self._frame.position_cursor())  # to the top of the last frame, erasing it
            if self._finished:
                self._console.print(*self._finished, sep="\n", no_wrap=True, overflow="crop")
                self._finished.clear()
            self._frame.set_renderable(Text("\n", no_wrap=True, overflow="crop").join(frame))
            self._console.print(self._frame)

    def _header(self, outcome: str = "") -> Text:
        now = self._clock()
        seconds = max(0.0, now - (self._trace.started or now))
        done, total = self._trace.finished_steps, self._trace.wanted_steps
        return self._line(f"[+] Building {seconds:.1f}s ({done}/{total}) {outcome}".rstrip())

    def _rows(self) -> list[Text]:
        """What runs, as far as the terminal is high: every step first, then what they say."""
        room = max(1, self._console.height - 2)
        steps = list(self._running)
        if len(steps) > room:
            shown = [self._step_line(step) for step in steps[: room - 1]]
            return [*shown, self._line(f" => ... and {len(steps) - len(shown)} more")]
        rows, spare = [], room - len(steps)
        for place, step in enumerate(steps):
            share = spare // (len(steps) - place)
            details = self._details(step)[-share:] if share else []
            rows += [self._step_line(step), *details]
            spare -= len(details)
        return rows

    def _details(self, step: Step) -> list[Text]:
        transfers = [status for status in step.statuses.values() if status.completed is None]
        lines = step.last_lines(_TAIL)
        return [
            *(self._status_line(status) for status in transfers),
            *(self._line(f" => => # {line.expandtabs()}", style="dim") for line in lines),
        ]

    def _end_lines(self, step: Step) -> list[Text]:
        """A finished step, and what it had to say beyond the transfers that are now complete."""
        style = _STYLES.get(step.outcome, "")
        news = [status for status in step.statuses.values() if not status.total and status.completed is not None]
        return [self._step_line(step, style), *(self._status_line(status, style) for status in news)]

    def _step_line(self, step: Step, style: str = "") -> Text:
        name = _WORDS.get(step.outcome, "") + step.name
        return self._line(f" => {name}", f"{step.seconds(self._clock()):.1f}s", style)

    def _status_line(self, status: StatusEvent, style: str = "") -> Text:
        text = f" => => {safe(status.id)}"
        if status.total:
            text += f" {show_progress(status.current)} / {show_progress(status.total)}"
        elif status.current:
            text += f" {show_progress(status.current)}"
        end = self._clock() if status.completed is None else status.completed
        return self._line(text, f"{max(0.0, end - (status.started or end)):.1f}s", style)

    def _line(self, left: str, right: str = "", style: str = "") -> Text:
        """`left`, cropped where it must be, and `right` at the right edge."""
        width = max(20, self._console.width - 1)
        if right:
            left = set_cell_size(left, max(0, width - cell_len(right) - 1)) + " " + right
        return Text(set_cell_size(left, min(width, cell_len(left))), style=style)
