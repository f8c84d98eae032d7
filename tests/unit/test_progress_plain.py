"""The plain format, letter by letter: what a CI log shows."""

from __future__ import annotations

from textwrap import dedent

from buildengine.cli.progress.model import Trace
from buildengine.cli.progress.plain import PlainPainter
from buildengine.events import Event, LogEvent, Outcome, ProgressGroup, StatusEvent, VertexEvent, WarningEvent


class Log:
    """A painter on paper, and the clock that it looks at."""

    def __init__(self) -> None:
        self.text = ""
        self.now = 100.0
        self.trace = Trace()
        self.painter = PlainPainter(self.trace, self._write, lambda: self.now)

    def _write(self, text: str) -> None:
        self.text += text

    def tell(self, *events: Event) -> Log:
        for event in events:
            self.painter.event(event, self.trace.apply(event))
        return self

    def tick(self, now: float) -> Log:
        self.now = now
        self.painter.tick()
        return self

    def end(self) -> str:
        for change in self.trace.cancel(self.now):
            self.painter.event(change.event, change)
        self.painter.close("FINISHED")
        return self.text


def started(digest: str, name: str, at: float = 100.0) -> VertexEvent:
    return VertexEvent(digest=digest, name=name, started=at)


def ended(
    digest: str, name: str, outcome: Outcome = Outcome.DONE, *, at: float = 100.0, seconds: float = 0.3, error: str = ""
) -> VertexEvent:
    return VertexEvent(digest=digest, name=name, started=at, completed=at + seconds, outcome=outcome, error=error)


def output(digest: str, text: str, at: float = 100.123, stream: int = 1) -> LogEvent:
    return LogEvent(vertex=digest, stream=stream, data=text.encode(), timestamp=at)


def expect(log: Log, text: str) -> None:
    assert log.end() == dedent(text).lstrip("\n")


def test_a_small_build() -> None:
    load, base, run, export = "load", "base", "run", "export"
    log = Log().tell(
        VertexEvent(digest=load, name="[internal] load build definition from Dockerfile"),
        started(load, "[internal] load build definition from Dockerfile"),
        StatusEvent(
            id="transferring dockerfile:", vertex=load, current=54, timestamp=100.0, started=100.0, completed=100.0
        ),
        ended(load, "[internal] load build definition from Dockerfile", seconds=0.02),
        VertexEvent(digest=base, name="[1/2] FROM docker.io/library/busybox:latest"),
        VertexEvent(digest=run, name="[2/2] RUN make", inputs=(base,)),
        ended(base, "[1/2] FROM docker.io/library/busybox:latest", Outcome.CACHED, seconds=0.0),
        started(run, "[2/2] RUN make"),
        output(run, "compiling\nlin"),
        output(run, "king\n", at=111.5),
        ended(run, "[2/2] RUN make", seconds=12.34),
        started(export, "exporting to image", at=113.0),
        StatusEvent(id="exporting layers", vertex=export, timestamp=113.0, started=113.0),
        StatusEvent(id="exporting layers", vertex=export, timestamp=113.2, started=113.0, completed=113.2),
        ended(export, "exporting to image", at=113.0, seconds=0.25),
    )
    expect(
        log,
        """
        #1 [internal] load build definition from Dockerfile
        #1 transferring dockerfile: 54B done
        #1 DONE 0.0s

        #2 [1/2] FROM docker.io/library/busybox:latest
        #2 CACHED

        #3 [2/2] RUN make
        #3 0.123 compiling
        #3 0.123 linking
        #3 DONE 12.3s

        #4 exporting to image
        #4 exporting layers
        #4 exporting layers 0.2s done
        #4 DONE 0.2s
        """,
    )


def test_how_steps_end() -> None:
    log = Log().tell(
        VertexEvent(digest="skipped", name="skipped"),
        ended("a", "done", Outcome.DONE),
        ended("b", "cached", Outcome.CACHED),
        ended("c", "failed", Outcome.FAILED, error="exit code: 1"),
        ended("d", "cancelled", Outcome.CANCELED, error="context canceled"),
        started("e", "still open"),
    )
    expect(
        log,
        """
        #1 done
        #1 DONE 0.3s

        #2 cached
        #2 CACHED

        #3 failed
        #3 ERROR: exit code: 1

        #4 cancelled
        #4 CANCELED

        #5 still open
        #5 CANCELED
        """,
    )


def test_one_step_has_the_page_and_others_wait_for_its_end() -> None:
    log = Log().tell(
        started("a", "RUN a"),
        started("b", "RUN b"),
        output("a", "a1\n"),
        output("b", "b1\n"),
        output("a", "a2\n"),
        output("b", "b2\n"),
        ended("a", "RUN a"),
        output("b", "b3\n"),
        ended("b", "RUN b"),
    )
    expect(
        log,
        """
        #1 RUN a
        #1 0.123 a1
        #1 0.123 a2
        #1 DONE 0.3s

        #2 RUN b
        #2 0.123 b1
        #2 0.123 b2
        #2 0.123 b3
        #2 DONE 0.3s
        """,
    )


def test_a_step_that_ends_is_printed_at_once_and_the_other_goes_on_below() -> None:
    log = Log().tell(
        started("a", "RUN a"),
        output("a", "a1\n"),
        started("b", "RUN b"),
        output("b", "b1\n"),
        ended("b", "RUN b"),
        output("a", "a2\n"),
        ended("a", "RUN a"),
    )
    expect(
        log,
        """
        #1 RUN a
        #1 0.123 a1
        #1 ...

        #2 RUN b
        #2 0.123 b1
        #2 DONE 0.3s

        #1 RUN a
        #1 0.123 a2
        #1 DONE 0.3s
        """,
    )


def test_a_silent_step_loses_the_page_and_a_busy_one_after_a_while() -> None:
    log = Log().tell(started("a", "RUN a"), started("b", "RUN b"), output("b", "b1\n"))
    log.tick(100.9)
    assert "b1" not in log.text
    log.tick(101.0)
    assert log.text == "#1 RUN a\n#1 ...\n\n#2 RUN b\n#2 0.123 b1\n"
    for tenth in range(1, 70):  # both talk all the time now
        log.now = 101.0 + tenth / 10
        log.tell(output("a", "a\n", at=log.now), output("b", "b\n", at=log.now))
    assert log.text.count("#2 ...\n\n#1 RUN a\n") == 1
    assert log.text.index("#2 ...") > log.text.index("#2 5.")


def test_a_step_that_only_runs_is_named_when_the_page_is_free() -> None:
    log = Log().tell(started("a", "RUN a"), started("b", "RUN b"), ended("a", "RUN a")).tick(100.2)
    assert log.text.endswith("#1 DONE 0.3s\n\n#2 RUN b\n")
    log.tick(100.3).tick(200.0)
    assert log.text.endswith("#1 DONE 0.3s\n\n#2 RUN b\n")


def test_output_is_made_safe() -> None:
    log = Log().tell(
        started("a", "RUN \x1b[2Ja\nb"),
        LogEvent(vertex="a", stream=1, data=b"\x1b[31mred\x1b[0m \xff\r\n 1%\r 2%\rdone\n", timestamp=100.0),
        ended("a", "RUN \x1b[2Ja\nb", Outcome.FAILED, error="bad\x1b[2J"),
    )
    expect(
        log,
        """
        #1 RUN a b
        #1 0.000 red \\xff
        #1 0.000 done
        #1 ERROR: bad
        """,
    )


def test_the_last_line_needs_no_end_and_both_streams_are_kept_apart() -> None:
    log = Log().tell(
        started("a", "RUN a"),
        output("a", "to out"),
        output("a", "to err\n", stream=2),
        output("a", " and on"),
        ended("a", "RUN a"),
    )
    expect(
        log,
        """
        #1 RUN a
        #1 0.123 to err
        #1 0.123 to out and on
        #1 DONE 0.3s
        """,
    )


def test_offsets_keep_their_width() -> None:
    log = Log().tell(
        started("a", "RUN a"), *(output("a", "x\n", at=100 + at) for at in (0.0, 9.9994, 12.3456, 123.456))
    )
    assert log.text == "#1 RUN a\n#1 0.000 x\n#1 9.999 x\n#1 12.35 x\n#1 123.5 x\n"
    early = Log().tell(started("a", "RUN a"), output("a", "x\n", at=99.0))
    assert early.text.endswith("#1 0.000 x\n")


def test_transfers_are_printed_now_and_then() -> None:
    total = 100_000_000

    def at(moment: float, current: int, completed: float | None = None) -> StatusEvent:
        return StatusEvent(
            id="sha256:3f1c",
            vertex="a",
            current=current,
            total=total,
            timestamp=moment,
            started=100.0,
            completed=completed,
        )

    log = Log().tell(
        started("a", "FROM debian"),
        at(100.0, 0),
        at(100.1, 1_000_000),
        at(100.2, 6_000_000),
        at(101.0, 7_000_000),
        at(106.0, 8_000_000),
        at(107.0, total, completed=107.0),
        at(107.1, total, completed=107.0),
        ended("a", "FROM debian", seconds=7.5),
    )
    expect(
        log,
        """
        #1 FROM debian
        #1 sha256:3f1c 0B / 100.00MB
        #1 sha256:3f1c 6.00MB / 100.00MB 0.2s
        #1 sha256:3f1c 8.00MB / 100.00MB 6.0s
        #1 sha256:3f1c 100.00MB / 100.00MB 7.0s done
        #1 DONE 7.5s
        """,
    )


def test_warnings_also_after_the_end() -> None:
    log = Log().tell(
        started("a", "load"),
        WarningEvent(vertex="a", message="first (line 1)"),
        ended("a", "load"),
        WarningEvent(vertex="a", message="second (line 2)"),
        ended("b", "next"),
    )
    expect(
        log,
        """
        #1 load
        #1 WARN: first (line 1)
        #1 DONE 0.3s

        #1 load
        #1 WARN: second (line 2)

        #2 next
        #2 DONE 0.3s
        """,
    )


def test_a_step_that_runs_again_is_printed_again_under_its_number() -> None:
    log = Log().tell(
        ended("a", "RUN a", Outcome.CACHED, seconds=0.0),
        ended("a", "RUN a", Outcome.CACHED, seconds=0.0),
        ended("b", "RUN b"),
        started("a", "RUN a", at=103.0),
        ended("a", "RUN a", Outcome.DONE, at=103.0, seconds=1.0),
    )
    expect(
        log,
        """
        #1 RUN a
        #1 CACHED

        #2 RUN b
        #2 DONE 0.3s

        #1 RUN a
        #1 DONE 1.0s
        """,
    )


def test_a_group_is_printed_as_one_step() -> None:
    group = ProgressGroup(id="g", name="[internal] helper")
    log = Log().tell(
        VertexEvent(digest="a", name="a", group=group, started=100.0, completed=100.1, outcome=Outcome.CACHED),
        VertexEvent(digest="b", name="b", group=group),
    )
    expect(
        log,
        """
        #1 [internal] helper
        #1 CACHED
        """,
    )
