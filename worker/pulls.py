"""Pulls as users see them: the layers of an image are told of at the step that names it, whoever needs their files.

An image is pulled long after its step has ended, layer by layer, by the first step or export that reads it. It knows
nothing of registries and of layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from buildengine.digest import Digest
from solver.reporter import Reporter

Progress = Callable[[Digest, int, int], None]
"""A blob, how many of its bytes are here, and how many it has."""

_INTERVAL = 0.15  # seconds between two reports of a blob. Facts: BuildKit util/pull/pullprogress (trackProgress)


class Pulls:
    """Those of one build."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reporters: dict[Digest, Reporter] = {}

    def expect(self, blobs: Iterable[Digest], reporter: Reporter) -> None:
        """These blobs belong to the step of `reporter`; the first step that names a blob has it."""
        for blob in blobs:
            self._reporters.setdefault(blob, reporter)

    @contextmanager
    def downloading(self, blob: Digest) -> Iterator[Progress]:
        """What is yielded is to be told how far the download is. Of a blob that nobody expects nothing is said."""
        reporter = self._reporters.get(blob)
        if reporter is None:
            yield lambda blob, current, total: None
            return
        download = _Download(reporter, blob, self._clock)
        try:
            yield download.tell
        finally:
            download.end()

    @contextmanager
    def extracting(self, blob: Digest) -> Iterator[None]:
        reporter = self._reporters.get(blob)
        if reporter is None:
            yield
            return
        name, started = f"extracting {blob}", self._clock()
        reporter.status(name, name="extracting", started=started)
        try:
            yield
        finally:
            reporter.status(name, name="extracting", started=started, completed=self._clock())


class _Download:
    def __init__(self, reporter: Reporter, blob: Digest, clock: Callable[[], float]) -> None:
        self._reporter = reporter
        self._blob = blob
        self._clock = clock
        self._started = self._told = clock()
        self._current = self._total = 0
        self._report()

    def tell(self, blob: Digest, current: int, total: int) -> None:
        self._current, self._total = current, total
        now = self._clock()
        if now - self._told >= _INTERVAL:
            self._told = now
            self._report()

    def end(self) -> None:
        self._report(self._clock(), "done")

    def _report(self, completed: float | None = None, name: str = "downloading") -> None:
        self._reporter.status(
            self._blob,
            name=name,
            current=self._current,
            total=self._total,
            started=self._started,
            completed=completed,
        )
