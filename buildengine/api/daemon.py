"""What a daemon offers to the services of the API: one Protocol, in the values of the engine.

The Control servicer is written against it; `buildengine.daemon.service` implements it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from typing import Protocol

from buildengine.api.control_pb2 import StatusResponse
from buildengine.builder import BuildRequest, PrunePolicy, UsageInfo
from buildengine.history import HistoryEvent, HistoryQuery
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb.definition import Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """A Solve: what to build, for whom, and what a request of the command line does not know.

    Without `definition` and without a frontend's name in `request` it waits for what its client solves through the
    gateway. `image_config` is that of a definition's result, b"" for the usual one. `source_policy_session` is that of
    a client who decides about each source. `traceparent` is the span of the client that this is part of (W3C Trace
    Context), "" for none.
    """

    request: BuildRequest
    session: str = ""
    definition: Definition | None = None
    image_config: bytes = b""
    inputs: Mapping[str, Definition] = field(default_factory=dict)
    internal: bool = False
    session_exporter: bool = False
    source_policy_session: str = ""
    traceparent: str = ""

    @property
    def is_clients(self) -> bool:
        """Whether the client itself is the frontend."""
        return self.definition is None and not self.request.frontend


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Where steps run. The machine's own platform comes first. `containers`: the runtime has some for a client."""

    id: str
    labels: Mapping[str, str]
    platforms: tuple[Platform, ...]
    policies: tuple[PrunePolicy, ...]
    containers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the daemon is: the package, the version, and the revision that it was made from."""

    package: str
    version: str
    revision: str


class Daemon(Protocol):
    """All calls raise BuildError, or an RpcError where BuildKit's clients look at the code."""

    @property
    def version(self) -> Version: ...

    def worker(self) -> WorkerInfo: ...

    async def disk_usage(self, filters: Sequence[str], *, unused_for: float) -> Sequence[UsageInfo]:
        """Records that were not used for so many seconds."""
        ...

    async def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None: ...

    async def solve(self, order: BuildOrder) -> Mapping[str, str]:
        """One build to its end: the exporter response. Cancelled, it ends everything that only it wanted."""
        ...

    def status(self, ref: str) -> AbstractAsyncContextManager[AsyncIterator[StatusResponse]]:
        """The progress of a build, from its beginning to its end. Waits a few seconds for one to begin."""
        ...

    def history(self, query: HistoryQuery) -> AbstractAsyncContextManager[AsyncIterator[HistoryEvent]]:
        """What is known of builds, and then what happens."""
        ...

    async def pin(self, ref: str, *, pinned: bool) -> None: ...

    async def forget(self, ref: str) -> None:
        """Delete what is remembered of a build."""
        ...

    async def finalize(self, ref: str) -> None:
        """Wait until all of a finished build is written down."""
        ...
