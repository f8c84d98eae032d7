"""Progress as text that only grows, for logs and pipes: BuildKit's plain format (util/progress/progressui).

    #5 [2/3] RUN make            a step, numbered in the order of printing
    #5 0.123 gcc -c main.c       a line of its output, seconds after its start
    #5 sha256:3f1c 1.05MB / 3.41MB 0.2s done
    #5 DONE 0.3s                 or CACHED, CANCELED, ERROR: message

Steps run side by side, and a page on which they alternate line by line cannot be read. So one step has the
page: its lines are printed as they come, those of others are held back until it ends, or until it is silent or
has had the page for a while. A step that ends is always printed at once.
"""

from __future__ import annotations

from collections.abc import Callable

from buildengine.cli.progress.lines import safe
from buildengine.cli.progress.model import Change, Step, Trace
from buildengine.events import Event, Outcome, StatusEvent, WarningEvent
from buildengine.units import show_progress

_TURN = 5.0  # seconds that one step may have the page while others wait
_SILENCE = 1.0  # seconds without a line after which it loses the page
_STATUS_PERIOD = 5.0  # a transfer is printed again after this time ...
_STATUS_STEP = 0.05  # ... or after this part of it


class PlainPainter:
    def __init__(self, trace: Trace, write: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._trace = trace
        self._write = write
        self._clock = clock
        self._numbers = 0
        self._page: Step | None = None
        self._turn_began = 0.0
        self._last_line = 0.0
        self._held: dict[Step, list[str]] = {}
        self._ended: dict[Step, tuple[Outcome, int]] = {}  # what was printed of its end: outcome, number of runs
        self._statuses: dict[tuple[Step, str], StatusEvent] = {}  # as last printed

    def event(self, event: Event, change: Change | None) -> None:
        if change is None:
            return
        step = change.step
        self._held.setdefault(step, []).extend(self._lines(change))
        if not step.started:
            return
        if step.finished:
            self._finish(step)
        elif self._page in (None, step):
            self._turn_to(step)
        else:
            self._pass_on()

    def tick(self) -> None:
        """Give the page to whoever waits for it, or to a step that runs and has not been named yet."""
        if self._page is None:
            unnamed = (step for step in self._trace.steps.values() if step.running and not step.number)
            step = next(iter(self._waiting()), None) or next(unnamed, None)
            if step is not None:
                self._turn_to(step)
        else:
            self._pass_on()

    def close(self, outcome: str) -> None:
        """Every step has ended and is printed by now; what has not started says nothing."""

    def _waiting(self) -> list[Step]:
        return [step for step, lines in self._held.items() if lines and step.started and step is not self._page]

    def _pass_on(self) -> None:
        now = self._clock()
        waiting = self._waiting()
        if waiting and (now - self._last_line >= _SILENCE or now - self._turn_began >= _TURN):
            self._turn_to(waiting[0])

    def _turn_to(self, step: Step) -> None:
        """Print what is held of `step`, under its name where the page was not its own."""
        now = self._clock()
        if step is not self._page:
            self._leave_page()
            self._headline(step)
            self._page, self._turn_began, self._last_line = step, now, now
        lines = self._held.pop(step, [])
        if lines:
            self._last_line = now
            self._write("".join(f"#{step.number} {line}\n" for line in lines))

    def _leave_page(self) -> None:
        if self._page is not None:
            self._write(f"#{self._page.number} ...\n")
            self._page = None

    def _headline(self, step: Step) -> None:
        blank = "\n" if self._numbers else ""
        if not step.number:
            self._numbers += 1
            step.number = self._numbers
        self._write(f"{blank}#{step.number} {step.name}\n")

    def _finish(self, step: Step) -> None:
        """Print the end of `step`, once for each time that it ran, and what may come after (a warning)."""
        end = (step.outcome, len(step.runs))
        is_news = self._ended.get(step) != end
        if not is_news and not self._held.get(step):
            return
        self._ended[step] = end
        self._turn_to(step)
        if is_news:
            self._write(f"#{step.number} {_verdict(step)}\n")
        self._page = None

    def _lines(self, change: Change) -> list[str]:
        if isinstance(change.event, StatusEvent):
            return self._status_lines(change.step, change.event)
        if isinstance(change.event, WarningEvent):
            return [f"WARN: {safe(change.event.message)}"]
        return [f"{_offset(line.time - change.step.last_start)} {line.text}" for line in change.lines]

    def _status_lines(self, step: Step, status: StatusEvent) -> list[str]:
        last = self._statuses.get((step, status.id))
        if last is not None and not _worth_printing(last, status):
            return []
        self._statuses[step, status.id] = status
        return [_status_line(status)]


def _worth_printing(last: StatusEvent, status: StatusEvent) -> bool:
    if status.completed is not None:
        return last.completed is None
    moved = (status.current - last.current) / status.total if status.total else 0.0
    return moved >= _STATUS_STEP or status.timestamp - last.timestamp >= _STATUS_PERIOD


def _status_line(status: StatusEvent) -> str:
    text = safe(status.id)
    if status.total:
        text += f" {show_progress(status.current)} / {show_progress(status.total)}"
    elif status.current:
        text += f" {show_progress(status.current)}"
    if status.started is not None:
        seconds = (status.timestamp if status.completed is None else status.completed) - status.started
        text += f" {seconds:.1f}s" if seconds > 0.01 else ""
    return text if status.completed is None else f"{text} done"


def _verdict(step: Step) -> str:
    if step.outcome is Outcome.FAILED:
        return f"ERROR: {step.error}"
    if step.outcome is Outcome.DONE:
        return f"DONE {step.seconds(0.0):.1f}s"
    return step.outcome.name


def _offset(seconds: float) -> str:
    """Seconds with at least four digits, so that lines of one step stand below each other."""
    decimals = 3 if seconds < 10 else 2 if seconds < 100 else 1
    return f"{max(0.0, seconds):.{decimals}f}"
