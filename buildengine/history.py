"""A build as it is remembered: what `history ls` and `ListenBuildHistory` tell, and the seam to whoever remembers.

The words are those of BuildKit's BuildHistoryRecord (api/services/control). Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import Protocol

from buildengine.builder import Export
from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.events import EventSink
from buildengine.values import dataclass

LOGS = "application/vnd.buildkit.status.v0"  # the status stream, see `api.journal`
TRACE = "application/vnd.buildkit.otlp.json.v0"  # see `api.spans`
ERROR = "application/vnd.googeapis.google.rpc.status+proto"  # spelt so by BuildKit (solver/llbsolver/history.go)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A document beside a record, to be read by its digest."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultInfo:
    """What a build gave: a manifest or index by the exporter's place among the request's, and attestations."""

    results: Mapping[int, Blob] = field(default_factory=dict)
    attestations: tuple[Blob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How many vertices a build had, by what became of them, and how many warnings it gave."""

    total: int = 0
    completed: int = 0
    cached: int = 0
    warnings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The end of a build that failed: a gRPC code and a sentence; `blob` has the details too."""

    code: int
    message: str
    blob: Blob | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """`completed` is None while it runs. `results` are those of a build for several platforms, by platform."""

    ref: str
    frontend: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    exports: tuple[Export, ...] = ()
    created: float
    completed: float | None = None
    failure: Failure | None = None
    response: Mapping[str, str] = field(default_factory=dict)
    result: ResultInfo | None = None
    results: Mapping[str, ResultInfo] = field(default_factory=dict)
    logs: Blob | None = None
    trace: Blob | None = None
    steps: Steps = Steps()
    pinned: bool = False
    generation: int = 0

    def blobs(self) -> tuple[Blob, ...]:
        """All documents that belong to this record."""
        of_results = [blob for info in (self.result, *self.results.values()) if info for blob in info.attestations]
        own = (self.logs, self.trace, self.failure.blob if self.failure else None)
        return (*(blob for blob in own if blob), *of_results)


class Happening(Enum):
    """What became of a record, or that it is one of those that there are."""

    STARTED = "started"
    COMPLETE = "complete"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    happening: Happening
    record: BuildRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """`ref` "" is any build, `limit` 0 none. With `early_exit` what is known is all; otherwise what happens follows."""

    ref: str = ""
    active_only: bool = False
    early_exit: bool = False
    filters: tuple[str, ...] = ()
    limit: int = 0


class BuildHistory(Protocol):
    """The builds that a daemon remembers. Implemented by `daemon/local_history.py`, which reads what a daemon has
    written on this host, and by the client of a daemon. Calls block, and raise BuildError."""

    def records(self, query: HistoryQuery) -> Sequence[BuildRecord]: ...

    def logs(self, ref: str, on_event: EventSink) -> None:
        """What the build told, from its beginning to its end, which may be still to come."""
        ...

    def remove(self, ref: str) -> None: ...

    def failure(self, record: BuildRecord) -> BuildError | None:
        """Why the build failed, with everything that is known of it."""
        ...

    def document(self, digest: Digest) -> bytes | None:
        """A document that a record names, or a blob of what was built; None when it is not there any more."""
        ...
