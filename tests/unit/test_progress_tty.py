"""The terminal view, on a terminal emulator: what a person sees, and what is left in the end."""

from __future__ import annotations

import io

import pyte
import pytest

from buildengine.cli.progress.model import Trace
from buildengine.cli.progress.tty import TtyPainter, open_console
from buildengine.events import Event, LogEvent, Outcome, StatusEvent, VertexEvent

WIDTH, HEIGHT = 60, 12


class Terminal:
    """A painter on an emulated terminal with its history, and the clock that it looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int = WIDTH, height: int = HEIGHT) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("LINES", str(height))
        self.screen = pyte.HistoryScreen(width, height, history=10_000, ratio=1.0)
        self.screen.set_mode(pyte.modes.LNM)
        self.emulator = pyte.Stream(self.screen)
        self.written = ""
        self.writes = 0
        self.now = 100.0
        self.trace = Trace(keep=200)
        self.painter = TtyPainter(self.trace, open_console(_Wire(self)), lambda: self.now)

    def tell(self, *events: Event, at: float | None = None) -> Terminal:
        self.now = at if at is not None else self.now
        for event in events:
            self.painter.event(event, self.trace.apply(event))
        return self

    def tick(self, at: float) -> Terminal:
        self.now = at
        self.painter.tick()
        return self

    def close(self, outcome: str = "FINISHED") -> Terminal:
        for change in self.trace.cancel(self.now):
            self.painter.event(change.event, change)
        self.painter.close(outcome)
        return self

    @property
    def lines(self) -> list[str]:
        """Everything from the first line on, without blank lines at the end."""
        scrolled = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*scrolled, *self.screen.display]).rstrip().split("\n")

    def colour_of(self, text: str) -> str:
        row = next(y for y, line in enumerate(self.screen.display) if text in line)
        return str(self.screen.buffer[row][0].fg)


class _Wire(io.StringIO):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, text: str) -> int:
        self._terminal.emulator.feed(text)
        self._terminal.written += text
        self._terminal.writes += 1
        return len(text)


def running(digest: str, name: str, at: float = 100.0) -> VertexEvent:
    return VertexEvent(digest=digest, name=name, started=at)


def ended(
    digest: str, name: str, outcome: Outcome = Outcome.DONE, at: float = 100.0, seconds: float = 0.5
) -> VertexEvent:
    return VertexEvent(digest=digest, name=name, started=at, completed=at + seconds, outcome=outcome)


def output(digest: str, data: bytes) -> LogEvent:
    return LogEvent(vertex=digest, stream=1, data=data, timestamp=100.0)


def row(left: str, right: str, width: int = WIDTH) -> str:
    return left + right.rjust(width - 1 - len(left))


def test_a_build_from_the_first_to_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    terminal.tell(
        VertexEvent(digest="base", name="[1/3] FROM debian"),
        VertexEvent(digest="run", name="[2/3] RUN make", inputs=("base",)),
        VertexEvent(digest="copy", name="[3/3] COPY . /src"),
        ended("base", "[1/3] FROM debian", Outcome.CACHED, seconds=0.0),
        running("run", "[2/3] RUN make"),
        running("copy", "[3/3] COPY . /src", at=101.0),
        output("run", b"gcc -c a.c\n\x1b[31mgcc -c b.c\x1b[0m\n 50%\r 70%"),
    )
    assert terminal.written == ""  # the first moment is not worth painting
    terminal.tick(103.2)
    assert terminal.lines == [
        row(" => CACHED [1/3] FROM debian", "0.0s"),
        "[+] Building 3.2s (1/3)",
        row(" => [2/3] RUN make", "3.2s"),
        " => => # gcc -c a.c",
        " => => # gcc -c b.c",
        " => => #  70%",
        row(" => [3/3] COPY . /src", "2.2s"),
    ]
    terminal.tell(ended("copy", "[3/3] COPY . /src", at=101.0, seconds=2.5), at=103.5)
    assert terminal.lines == [
        row(" => CACHED [1/3] FROM debian", "0.0s"),
        row(" => [3/3] COPY . /src", "2.5s"),
        "[+] Building 3.5s (2/3)",
        row(" => [2/3] RUN make", "3.5s"),
        " => => # gcc -c a.c",
        " => => # gcc -c b.c",
        " => => #  70%",
    ]
    terminal.tell(ended("run", "[2/3] RUN make", seconds=4.0), at=104.0).close()
    assert terminal.lines == [
        row(" => CACHED [1/3] FROM debian", "0.0s"),
        row(" => [3/3] COPY . /src", "2.5s"),
        row(" => [2/3] RUN make", "4.0s"),
        "[+] Building 4.0s (3/3) FINISHED",
    ]
    assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (0, 4)


def test_a_quick_build_is_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    terminal.tell(*(ended(str(n), f"step {n}", Outcome.CACHED, seconds=0.0) for n in range(3)), at=100.08)
    assert terminal.writes == 0
    terminal.close()
    assert terminal.lines == [
        *(row(f" => CACHED step {n}", "0.0s") for n in range(3)),
        "[+] Building 0.1s (3/3) FINISHED",
    ]
    assert terminal.writes <= 3


def test_how_steps_end_and_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    terminal.tell(
        VertexEvent(digest="skipped", name="skipped"),
        ended("a", "good", Outcome.DONE),
        ended("b", "kept", Outcome.CACHED),
        ended("c", "bad", Outcome.FAILED),
        ended("d", "gone", Outcome.CANCELED),
        running("e", "open"),
        at=102.0,
    )
    terminal.close("FAILED")
    assert terminal.lines == [
        row(" => good", "0.5s"),
        row(" => CACHED kept", "0.5s"),
        row(" => ERROR bad", "0.5s"),
        row(" => CANCELED gone", "0.5s"),
        row(" => CANCELED open", "2.0s"),
        "[+] Building 2.0s (5/6) FAILED",
    ]
    colours = [terminal.colour_of(name) for name in ("good", "kept", "bad", "gone", "open")]
    assert colours == ["blue", "cyan", "red", "brown", "brown"]


def test_transfers_run_and_vanish_but_news_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    layer = StatusEvent(
        id="sha256:3f1c", vertex="a", current=1_050_000, total=3_410_000, timestamp=101.0, started=100.0
    )
    naming = StatusEvent(id="naming to app", vertex="a", timestamp=101.0, started=101.0, completed=101.0)
    sent = StatusEvent(id="transferring context:", vertex="a", current=2048, timestamp=101.0, started=100.0)
    terminal.tell(running("a", "export"), layer, naming, sent).tick(102.0)
    assert terminal.lines == [
        "[+] Building 2.0s (0/1)",
        row(" => export", "2.0s"),
        row(" => => sha256:3f1c 1.05MB / 3.41MB", "2.0s"),
        row(" => => transferring context: 2.05kB", "2.0s"),
    ]
    complete = StatusEvent(
        id="sha256:3f1c", vertex="a", current=3_410_000, total=3_410_000, started=100.0, completed=101.0
    )
    terminal.tell(complete, ended("a", "export", seconds=2.5)).tick(103.0).close()
    assert terminal.lines == [
        row(" => export", "2.5s"),
        row(" => => naming to app", "0.0s"),
        "[+] Building 3.0s (1/1) FINISHED",
    ]


@pytest.mark.parametrize("height", [4, 6, 9, 12])
def test_what_runs_never_grows_beyond_the_terminal(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    terminal = Terminal(monkeypatch, height=height)
    names = [f"step {n}" for n in range(8)]
    for count, name in enumerate(names, 1):
        terminal.tell(running(name, name), *(output(name, b"line\n") for _ in range(9)), at=100.0 + count)
        assert len(terminal.lines) <= height - 1
    body = terminal.lines[1:]
    if height < 10:
        assert body[-1] == f" => ... and {8 - (height - 3)} more"
    else:
        assert [line.split()[2] for line in body if line.startswith(" => step")] == [str(n) for n in range(8)]
    for name in names:
        terminal.tell(ended(name, name, seconds=9.0), at=109.0)
    terminal.close()
    assert terminal.lines == [*(row(f" => {name}", "9.0s") for name in names), "[+] Building 9.0s (8/8) FINISHED"]


def test_room_is_shared_among_the_talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, height=10)
    terminal.tell(running("a", "a"), running("b", "b"), *(output("b", b"%d\n" % n) for n in range(9)))
    terminal.tick(101.0)
    assert [line.split()[-1] for line in terminal.lines if "#" in line] == ["3", "4", "5", "6", "7", "8"]
    terminal.tell(*(output("a", b"%d\n" % n) for n in range(9))).tick(102.0)
    assert [line.split()[-1] for line in terminal.lines if "#" in line] == ["6", "7", "8", "6", "7", "8"]


def test_long_and_wide_names_are_cropped_to_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, width=30)
    terminal.tell(running("a", "x" * 100), running("b", "日本語" * 20), output("a", b"y" * 100 + b"\n")).tick(101.0)
    lines = terminal.lines
    assert lines[1] == " => " + "x" * 20 + " 1.0s"
    assert lines[2] == " => => # " + "y" * 20
    assert lines[3].endswith(" 1.0s")
    assert len(lines) == 4


def test_nothing_in_the_output_acts_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    evil = b"[bold]\x1b[2J\x1b[H\x1b]0;title\x07 :smile: \xff\n"
    terminal.tell(running("a", "RUN \x1b[2J[red]x"), output("a", evil)).tick(101.0)
    assert terminal.lines == [
        "[+] Building 1.0s (0/1)",
        row(" => RUN [red]x", "1.0s"),
        r" => => # [bold] :smile: \xff",
    ]
    assert "\x1b[2J" not in terminal.written
    assert "\x1b[?25" not in terminal.written  # the cursor is never hidden


def test_paintings_are_rare_however_much_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    terminal.tell(running("a", "a"))
    for number in range(1000):
        terminal.tell(output("a", b"x\n"), at=100.0 + number / 1000)
    assert 5 <= terminal.writes <= 40


def test_many_cached_steps_scroll_away_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    terminal.tell(*(ended(str(n), f"step {n}", Outcome.CACHED, seconds=0.0) for n in range(500)), at=100.01).close()
    assert len(terminal.lines) == 501
    assert terminal.lines[499:] == [row(" => CACHED step 499", "0.0s"), "[+] Building 0.0s (500/500) FINISHED"]
