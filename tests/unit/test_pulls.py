"""Pulls as users see them: at the step of the image, and not too often."""

from __future__ import annotations

import itertools

import pytest

from buildengine.digest import Digest
from buildengine.events import Event, StatusEvent
from solver.reporter import Reporter
from worker.pulls import Pulls

BLOB, OTHER = Digest.sha256(b"blob"), Digest.sha256(b"other")


def reporting(vertex: str) -> tuple[Reporter, list[Event]]:
    reporter, events = Reporter(vertex), list[Event]()
    reporter.bind(events.append)
    return reporter, events


def test_a_download_is_told_at_the_step_that_named_the_blob_first() -> None:
    first, events = reporting("sha256:1")
    second, silent = reporting("sha256:2")
    pulls = Pulls(itertools.count(1.0).__next__)
    pulls.expect((BLOB,), first)
    pulls.expect((BLOB,), second)
    with pulls.downloading(BLOB) as progress:
        progress(BLOB, 5, 10)
        progress(BLOB, 10, 10)
    with pulls.extracting(BLOB):
        pass
    told = [(e.id, e.current, e.total, e.completed is not None) for e in events if isinstance(e, StatusEvent)]
    assert told == [
        (BLOB, 0, 0, False),
        (BLOB, 5, 10, False),
        (BLOB, 10, 10, False),
        (BLOB, 10, 10, True),
        (f"extracting {BLOB}", 0, 0, False),
        (f"extracting {BLOB}", 0, 0, True),
    ]
    assert not silent


def test_reports_have_an_interval() -> None:
    reporter, events = reporting("sha256:1")
    pulls = Pulls(clock=lambda: 1.0)
    pulls.expect((BLOB,), reporter)
    with pulls.downloading(BLOB) as progress:
        for count in range(1000):
            progress(BLOB, count, 1000)
    assert len(events) == 2


def test_a_download_that_fails_has_ended() -> None:
    reporter, events = reporting("sha256:1")
    pulls = Pulls()
    pulls.expect((BLOB,), reporter)
    with pytest.raises(OSError, match="full"), pulls.downloading(BLOB):
        raise OSError("full")
    assert isinstance(events[-1], StatusEvent)
    assert events[-1].completed is not None


def test_of_a_blob_that_nobody_named_nothing_is_said() -> None:
    reporter, events = reporting("sha256:1")
    pulls = Pulls()
    pulls.expect((BLOB,), reporter)
    with pulls.downloading(OTHER) as progress, pulls.extracting(OTHER):
        progress(OTHER, 1, 2)
    assert not events
