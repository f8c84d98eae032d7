"""What a trace makes of events: steps, their times and outcomes, and how many there are to do."""

from __future__ import annotations

import dataclasses

import pytest

from buildengine.cli.progress.model import Trace
from buildengine.events import LogEvent, Outcome, ProgressGroup, StatusEvent, VertexEvent, WarningEvent


def vertex(digest: str, *inputs: str, outcome: Outcome = Outcome.RUNNING, **more: object) -> VertexEvent:
    return VertexEvent(digest=digest, name=digest.upper(), inputs=inputs, outcome=outcome, **more)


def done(digest: str, *inputs: str, outcome: Outcome = Outcome.DONE) -> VertexEvent:
    return vertex(digest, *inputs, outcome=outcome, started=1.0, completed=2.0)


def apply(trace: Trace, *events: VertexEvent) -> None:
    for event in events:
        trace.apply(event)


def test_steps_in_the_order_of_their_first_appearance() -> None:
    trace = Trace()
    apply(trace, vertex("a"), vertex("b", "a"), done("b", "a"), done("a"))
    assert [step.name for step in trace.steps.values()] == ["A", "B"]


def test_the_life_of_a_step() -> None:
    trace = Trace()
    trace.apply(vertex("a"))
    step = trace.steps["a"]
    assert (step.started, step.running, step.finished) == (False, False, False)
    trace.apply(vertex("a", started=5.0))
    assert (step.started, step.running, step.finished, step.seconds(7.5)) == (True, True, False, 2.5)
    trace.apply(vertex("a", started=5.0, completed=6.0, outcome=Outcome.DONE))
    assert (step.running, step.finished, step.outcome, step.seconds(99)) == (False, True, Outcome.DONE, 1.0)
    assert trace.started == 5.0


def test_a_repeated_event_changes_nothing() -> None:
    trace = Trace()
    assert trace.apply(done("a")) is not None
    assert trace.apply(done("a")) is None
    status = StatusEvent(id="s", vertex="a")
    assert trace.apply(status) is not None
    assert trace.apply(status) is None


def test_events_of_unknown_vertices_are_dropped_but_warnings_kept() -> None:
    trace = Trace()
    assert trace.apply(LogEvent(vertex="x", stream=1, data=b"a")) is None
    assert trace.apply(StatusEvent(id="s", vertex="x")) is None
    warning = WarningEvent(vertex="x", message="careful")
    assert trace.apply(warning) is None
    assert trace.warnings == [warning]


def test_a_step_that_runs_again_adds_its_times() -> None:
    trace = Trace()
    apply(
        trace,
        vertex("a", started=1.0, completed=2.0, outcome=Outcome.CACHED),
        vertex("a", started=4.0),
    )
    step = trace.steps["a"]
    assert (step.running, step.last_start, step.seconds(6.0)) == (True, 4.0, 3.0)


def test_overlapping_runs_count_once() -> None:
    trace = Trace()
    group = ProgressGroup(id="g", name="group")
    apply(
        trace,
        vertex("a", started=1.0, completed=4.0, outcome=Outcome.DONE, group=group),
        vertex("b", started=2.0, completed=3.0, outcome=Outcome.DONE, group=group),
        vertex("c", started=3.5, completed=5.0, outcome=Outcome.DONE, group=group),
    )
    assert trace.steps["g"].seconds(0.0) == 4.0


@pytest.mark.parametrize(
    ("outcomes", "joint"),
    [
        ([Outcome.CACHED, Outcome.CACHED], Outcome.CACHED),
        ([Outcome.CACHED, Outcome.DONE], Outcome.DONE),
        ([Outcome.CACHED, Outcome.CANCELED], Outcome.CANCELED),
        ([Outcome.CANCELED, Outcome.FAILED], Outcome.FAILED),
    ],
)
def test_a_group_is_one_step(outcomes: list[Outcome], joint: Outcome) -> None:
    trace = Trace()
    group = ProgressGroup(id="g", name="copy things")
    for number, outcome in enumerate(outcomes):
        trace.apply(vertex(str(number), outcome=outcome, started=1.0, completed=2.0, group=group))
    assert list(trace.steps) == ["g"]
    assert (trace.steps["g"].name, trace.steps["g"].outcome) == ("copy things", joint)
    assert (trace.finished_steps, trace.wanted_steps) == (1, 1)
    trace.apply(LogEvent(vertex="1", stream=1, data=b"out\n"))
    assert trace.steps["g"].last_lines(5) == ["out"]


def test_a_group_is_hidden_until_a_strong_member_runs() -> None:
    trace = Trace()
    weak, strong = ProgressGroup(id="g", name="g", weak=True), ProgressGroup(id="g", name="g")
    apply(trace, dataclasses.replace(done("a"), group=weak))
    assert (trace.steps["g"].started, trace.wanted_steps) == (False, 0)
    apply(trace, dataclasses.replace(done("b"), group=strong))
    assert (trace.steps["g"].finished, trace.finished_steps, trace.wanted_steps) == (True, 1, 1)


def test_what_a_cached_step_makes_needless_is_not_counted_and_not_cached() -> None:
    trace = Trace()
    apply(trace, vertex("base"), vertex("a", "base"), vertex("b", "a"), vertex("other"), vertex("c", "b", "other"))
    assert (trace.finished_steps, trace.wanted_steps) == (0, 5)
    apply(trace, done("b", "a", outcome=Outcome.CACHED))
    assert (trace.finished_steps, trace.wanted_steps) == (1, 3)
    assert [trace.steps[key].outcome for key in ("base", "a", "b")] == [Outcome.RUNNING] * 2 + [Outcome.CACHED]
    apply(trace, done("other"), done("c", "b", "other"))
    assert (trace.finished_steps, trace.wanted_steps) == (3, 3)


def test_an_input_that_somebody_else_wants_is_counted() -> None:
    trace = Trace()
    apply(trace, vertex("base"), vertex("a", "base"), vertex("b", "base"), done("a", "base"))
    assert (trace.finished_steps, trace.wanted_steps) == (1, 3)
    apply(trace, done("b", "base"), done("b", "base"))
    assert (trace.finished_steps, trace.wanted_steps) == (2, 2)
    apply(trace, done("base"))  # another build wanted it
    assert (trace.finished_steps, trace.wanted_steps) == (3, 3)


def test_output_of_both_streams() -> None:
    trace = Trace(keep=3)
    trace.apply(vertex("a", started=1.0))
    step = trace.steps["a"]
    for stream, data in ((1, b"one\ntw"), (2, b"err\n"), (1, b"o\n"), (2, b"half")):
        trace.apply(LogEvent(vertex="a", stream=stream, data=data, timestamp=1.5))
    assert step.last_lines(10) == ["one", "err", "two", "half"]
    assert (step.last_lines(2), step.last_lines(0)) == (["two", "half"], [])
    change = trace.apply(vertex("a", started=1.0, completed=2.0, outcome=Outcome.FAILED, error="no"))
    assert change is not None
    assert [line.text for line in change.lines] == ["half"]
    assert [line.text for line in step.tail] == ["err", "two", "half"]
    assert (step.outcome, step.error) == (Outcome.FAILED, "no")


def test_what_is_open_at_the_end_was_cancelled() -> None:
    trace = Trace()
    apply(trace, vertex("never"), vertex("open", started=3.0), done("a", outcome=Outcome.CACHED))
    (change,) = trace.cancel(9.0)
    assert (change.step.name, change.step.outcome, change.step.seconds(0)) == ("OPEN", Outcome.CANCELED, 6.0)
    assert trace.cancel(9.0) == []
    assert trace.steps["a"].outcome is Outcome.CACHED
    assert not trace.steps["never"].started


def test_an_end_without_an_outcome_is_done() -> None:
    trace = Trace()
    trace.apply(vertex("a", started=1.0, completed=2.0))
    assert trace.steps["a"].outcome is Outcome.DONE


def test_names_are_safe() -> None:
    trace = Trace()
    trace.apply(VertexEvent(digest="a", name="RUN\n\x1b[2Jrm"))
    assert trace.find("a") is trace.steps["a"]
    assert trace.steps["a"].name == "RUN rm"
    assert trace.find(None) is None


def test_ten_thousand_steps_are_quick() -> None:
    trace = Trace()
    for number in range(10_000):
        trace.apply(vertex(str(number), *([str(number - 1)] if number else [])))
    apply(trace, done("9999", "9998", outcome=Outcome.CACHED))
    assert (trace.finished_steps, trace.wanted_steps) == (1, 1)
