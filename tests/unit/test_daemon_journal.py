"""A build's status stream: what is added to it, how it is kept, and that everybody reads all of it."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.api import convert
from buildengine.api.journal import Journal, messages, read
from buildengine.api.vertexstream import VertexStream
from buildengine.events import Event, LogEvent, Outcome, StatusEvent, VertexEvent, WarningEvent
from buildengine.history import Steps


def vertex(
    digest: str, *inputs: str, started: float | None = None, ended: float | None = None, **more: object
) -> Event:
    if ended is not None and "outcome" not in more:
        more["outcome"] = Outcome.DONE
    return VertexEvent(digest=digest, name=digest, inputs=inputs, started=started, completed=ended, **more)


def told(stream: VertexStream, *events: Event) -> list[tuple[str, Outcome]]:
    return [(e.digest, e.outcome) for event in events for e in stream.told(event) if isinstance(e, VertexEvent)]


# --- what is implied ---------------------------------------------------------------------------------------------


def test_inputs_that_nobody_looked_at_are_cached_when_a_step_starts() -> None:
    stream = VertexStream()
    found = told(stream, vertex("a"), vertex("b", "a"), vertex("c", "b"), vertex("c", "b", started=5.0))
    assert found[3:] == [("a", Outcome.CACHED), ("b", Outcome.CACHED), ("c", Outcome.RUNNING)]
    assert stream.steps == Steps(total=3, completed=2, cached=2)


def test_inputs_that_have_ended_stay_as_they_are() -> None:
    stream = VertexStream()
    found = told(stream, vertex("a"), vertex("a", started=1.0, ended=2.0), vertex("b", "a", started=3.0))
    assert found == [("a", Outcome.RUNNING), ("a", Outcome.DONE), ("b", Outcome.RUNNING)]


def test_what_has_not_ended_ends_with_the_stream() -> None:
    stream = VertexStream()
    told(stream, vertex("never"), vertex("open", started=1.0), vertex("done", started=1.0, ended=2.0))
    assert [(e.digest, e.outcome, e.completed) for e in stream.ended(9.0)] == [("open", Outcome.CANCELED, 9.0)]


def test_a_long_chain_is_no_recursion() -> None:
    stream = VertexStream()
    length = 20_000
    told(stream, *(vertex(str(n), *([str(n - 1)] if n else [])) for n in range(length)))
    list(stream.told(vertex("end", str(length - 1), started=1.0)))
    assert stream.steps.cached == length


def test_warnings_are_counted() -> None:
    stream = VertexStream()
    list(stream.told(WarningEvent(vertex="a", message="mind")))
    assert stream.steps.warnings == 1


# --- how it is kept ----------------------------------------------------------------------------------------------


@pytest.fixture
def fd() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


async def everything(journal: Journal) -> list[Event]:
    return [event async for response in journal.follow() for event in convert.events(response)]


async def test_everybody_reads_all_of_it(fd: int) -> None:
    journal = Journal(fd)
    early: list[Event] = []

    async def follow() -> None:
        early.extend(await everything(journal))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        journal.tell(vertex("a", started=1.0))
        await wait_all_tasks_blocked()
        journal.tell(LogEvent(vertex="a", stream=1, data=b"hello", timestamp=1.5))
        journal.tell(StatusEvent(id="x", vertex="a", current=1, timestamp=1.6))
        journal.tell(vertex("a", started=1.0, ended=2.0))
        journal.end()
    late = await everything(journal)
    assert sorted(map(repr, early)) == sorted(map(repr, late))
    assert LogEvent(vertex="a", stream=1, data=b"hello", timestamp=1.5) in late
    assert list(read(fd)) == [response async for response in journal.follow()]


async def test_what_is_told_after_the_end_is_not_told(fd: int) -> None:
    journal = Journal(fd)
    journal.end()
    journal.tell(vertex("late", started=1.0))
    assert await everything(journal) == []


async def test_more_than_fits_in_one_read(fd: int) -> None:
    """Output in pieces, and a warning whose source is longer than a read."""
    from buildengine.errors import Location

    journal = Journal(fd)
    long = Location(filename="Dockerfile", ranges=(), text=b"#" * (3 << 20))
    output = os.urandom(5 << 20)
    journal.tell(WarningEvent(vertex="a", message="long", location=long))
    journal.tell(LogEvent(vertex="a", stream=1, data=output, timestamp=1.0))
    journal.end()
    events = await everything(journal)
    assert b"".join(event.data for event in events if isinstance(event, LogEvent)) == output
    assert [event.location for event in events if isinstance(event, WarningEvent)] == [long]


async def test_a_torn_end_is_left_out(fd: int) -> None:
    journal = Journal(fd)
    journal.tell(vertex("a", started=1.0, ended=2.0))
    journal.end()
    whole = os.fstat(fd).st_size
    os.pwrite(fd, b"\xff\x00\x00\x00torn", whole)
    assert len(list(read(fd))) == 1
    assert [end for _, end in messages(os.pread(fd, 1 << 20, 0))] == [whole]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a disk that is full: the last write that has some room is a short one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_is_full_loses_progress_and_nothing_else(fd: int) -> None:
    """What has no room is left out whole, also where some of it had: who follows gets what is there, and the end."""
    journal = Journal(fd)
    following = journal.follow()
    with no_file_larger_than(4096):
        journal.tell(vertex("a", started=1.0))
        first = await anext(following)
        journal.tell(LogEvent(vertex="a", stream=1, data=bytes(1 << 18), timestamp=2.0))
    journal.tell(vertex("a", started=1.0, ended=3.0))
    journal.end()
    last = [response async for response in following]
    assert [(each.name, each.HasField("completed")) for each in first.vertexes] == [("a", False)]
    assert [(each.name, each.HasField("completed")) for one in last for each in one.vertexes] == [("a", True)]
    assert [one.logs for one in last] == [[]]
