"""Vertices that no graph has: resolving an image, exporting. Announced like any other, with a digest of their name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.events import EventSink, Outcome, VertexEvent
from solver.reporter import Reporter


@contextmanager
def step(on_event: EventSink, name: str, *, salt: str = "") -> Iterator[Reporter]:
    """A step that lasts as long as the block and ends as the block does."""
    digest = Digest.sha256(f"{name}\n{salt}".encode())
    reporter = Reporter(digest)
    reporter.bind(on_event)
    started = time.time()
    on_event(VertexEvent(digest=digest, name=name, started=started))

    def end(outcome: Outcome, error: str = "") -> None:
        on_event(
            VertexEvent(digest=digest, name=name, started=started, completed=time.time(), outcome=outcome, error=error)
        )

    try:
        yield reporter
    except (trio.Cancelled, KeyboardInterrupt):
        end(Outcome.CANCELED)
        raise
    except BaseException as error:
        end(Outcome.FAILED, str(error) if isinstance(error, BuildError) else type(error).__name__)
        raise
    end(Outcome.DONE)
