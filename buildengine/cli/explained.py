"""`build --explain`: why each step ran, or why it did not have to, for people.

Why steps ran, compared with the build of 2026-11-24 20:01:10:
  cached  [1/3] FROM docker.io/library/busybox:latest
          unchanged since 2026-11-24 20:01:10
  ran     [2/3] COPY src /src
          2 files changed: 1 added, 1 with other content
            content  src/main.c
            added    src/new.c
  ran     [3/3] RUN make
          because [2/3] COPY src /src ran again
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from buildengine.cli.progress.lines import safe
from buildengine.events import Cause, ExplainEvent

_LONGEST_NAME = 110
_LONGEST_LINE = 240
_HITS = (Cause.SAME, Cause.IMPORTED)


def lines(events: Sequence[ExplainEvent]) -> Iterator[str]:
    since = next((event.since for event in events if event.cause not in _HITS and event.since is not None), None)
    compared = f", compared with the build of {_moment(since)}" if since is not None else ""
    yield f"Why steps ran, or did not have to{compared}:"
    for event in events:
        yield f"  {event.fate:<6}  {_cut(safe(event.name), _LONGEST_NAME)}"
        made = f" since {_moment(event.since)}" if event.cause is Cause.SAME and event.since is not None else ""
        yield f"          {_cut(safe(event.text), _LONGEST_LINE)}{made}"
        yield from (f"            {_cut(safe(line), _LONGEST_LINE)}" for line in event.details)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
