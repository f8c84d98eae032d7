"""Which painter is chosen, and that it is closed whatever happens."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from buildengine.cli.progress.display import is_terminal, open_display, resolve
from buildengine.events import LogEvent, Outcome, VertexEvent

RUNNING = VertexEvent(digest="a", name="RUN a", started=100.0)


class Stream(io.StringIO):
    def __init__(self, *, tty: bool = False) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


class Gone(Stream):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_auto_looks_at_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert (resolve("auto", Stream(tty=True)), resolve("auto", Stream())) == ("tty", "plain")
    assert resolve("rawjson", Stream(tty=True)) == "rawjson"
    monkeypatch.setenv("TERM", "dumb")
    assert not is_terminal(Stream(tty=True))


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("plain", "#1 RUN a\n#1 CANCELED\n"),
        ("quiet", ""),
        ("none", ""),
    ],
)
def test_what_is_open_ends_with_the_display(mode: str, text: str) -> None:
    stream = Stream()
    with open_display(mode, stream, clock=lambda: 101.0) as display:
        display.event(RUNNING)
        display.tick()
    assert stream.getvalue() == text
    step = display.trace.find("a")
    assert step is not None
    assert step.outcome is Outcome.CANCELED


def test_rawjson_tells_the_cancelling_too() -> None:
    stream = Stream()
    with open_display("rawjson", stream, clock=lambda: 101.0) as display:
        display.event(RUNNING)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert '"error":"context canceled"' in lines[1]


@pytest.mark.parametrize(("error", "word"), [(ValueError, "FAILED"), (KeyboardInterrupt, "CANCELED")])
def test_the_terminal_is_left_in_order_when_the_build_fails(
    error: type[BaseException], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Stream(tty=True)

    def build() -> None:
        with open_display("tty", stream, clock=lambda: 101.0) as display:
            display.event(RUNNING)
            raise error

    with pytest.raises(error):
        build()
    assert stream.getvalue().endswith(f"[+] Building 1.0s (1/1) {word}\n")


def test_a_reader_that_goes_away_does_not_stop_the_build() -> None:
    with open_display("plain", Gone(), clock=lambda: 101.0) as display:
        for _ in range(3):
            display.event(RUNNING)
            display.event(LogEvent(vertex="a", stream=1, data=b"x\n"))
            display.tick()


def test_more_output_is_kept_where_it_is_not_printed() -> None:
    for mode, kept in (("plain", 10), ("quiet", 200)):
        with open_display(mode, Stream(), clock=lambda: 101.0) as display:
            display.event(RUNNING)
            display.event(LogEvent(vertex="a", stream=1, data=b"x\n" * 500))
        step = display.trace.find("a")
        assert step is not None
        assert len(step.tail) == kept


def test_rich_is_imported_for_a_terminal_only() -> None:
    program = """
import io, sys
from buildengine.cli.progress.display import open_display
for mode in ("plain", "rawjson", "quiet"):
    with open_display(mode, io.StringIO()):
        pass
assert "rich" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
