"""What a frontend outside this process may ask of a build: the Protocol behind the LLBBridge service, and its values.

The servicer (`buildengine.api.gateway`) is written against `Bridge`; `buildengine.daemon.bridge` implements it. A
reference is the build's name for a result: who has one reads its files, or builds on its definition. The empty id
names the empty tree, of which there is nothing to read.

Facts: BuildKit frontend/gateway/gateway.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Protocol

from buildengine.api.rpc import RpcError
from buildengine.attestation import Claim
from buildengine.builder import CacheEntry
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.sourcepolicy import Policy
from buildengine.values import dataclass
from frontends.gateway import USUAL_DETAILS, Details, FileInfo, ResolvedSource
from llb.definition import Definition
from llb.ops import ExecOp, SourceOp

BUILD_ID = "buildkit-controlapi-buildid"  # metadata of each call: which build it belongs to (client/buildid)

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """One result, by its id; "" is the empty tree."""

    id: str = ""
    definition: Definition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What is attested of a result: its content is in `ref`, None where nobody said."""

    claim: Claim
    ref: Ref | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a solve gives, and what a frontend returns. With `refs` (by platform, or by any other key) `ref` is not
    looked at. `metadata` has BuildKit's names (exporter/containerimage/exptypes). `attestations` are by platform."""

    ref: Ref = Ref()
    refs: Mapping[str, Ref] | None = None
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    attestations: Mapping[str, tuple[Attestation, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOrder:
    """A definition, or the name of a frontend with its options and inputs; neither is the empty tree.

    What it gives is looked for in the caches `cache_imports` too. `evaluate`: the answer waits until everything is
    there, and not only accepted. `policies` are source policies, besides the build's own.
    """

    definition: Definition | None = None
    frontend: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: _NONE)
    inputs: Mapping[str, Definition] = field(default_factory=dict)
    cache_imports: tuple[CacheEntry, ...] = ()
    policies: tuple[Policy, ...] = ()
    evaluate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOrder:
    """A container to be: `op`'s mounts, network, host name and hosts. Its inputs are the references `refs`."""

    id: str
    op: ExecOp
    refs: tuple[str, ...] = ()
    platform: Platform | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOrder:
    """A process to be in a container: `op`'s command, user, directory, secrets and privileges.

    The first one is PID 1, others join it. With a `terminal` that is all of its streams.
    """

    container: str
    op: ExecOp
    terminal: bool = False
    stdin: bool = False


class Process(Protocol):
    """A process that runs. Its descriptors, -1 where there is none, belong to whoever started it."""

    @property
    def stdin(self) -> int: ...

    @property
    def stdout(self) -> int: ...

    @property
    def stderr(self) -> int: ...

    @property
    def terminal(self) -> int: ...

    async def signal(self, number: int) -> None:
        """Nothing happens when it has ended."""
        ...

    async def wait(self) -> int:
        """The exit status as a shell has it: 128 and the number of the signal for one that was killed. Raises
        BuildError when it could not be started, RpcError(CANCELLED) when its container was released."""
        ...


class Bridge(Protocol):
    """Every call raises BuildError or RpcError; once the build has its result they raise RpcError(CANCELLED)."""

    async def solve(self, order: SolveOrder) -> Result: ...

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str,
        name: str,
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource: ...

    async def read_file(self, ref: str, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """All of the file, or `length` bytes from `offset` on, fewer where it ends."""
        ...

    async def read_dir(self, ref: str, path: str, *, include: str) -> Sequence[FileInfo]:
        """What a directory holds, sorted; `include` is a pattern for names, "" for all."""
        ...

    async def stat_file(self, ref: str, path: str) -> FileInfo: ...

    async def evaluate(self, ref: str) -> None:
        """Until the result is there."""
        ...

    async def new_container(self, order: ContainerOrder) -> None: ...

    async def release_container(self, id: str) -> None:
        """What runs in it is killed, and has ended."""
        ...

    async def start(self, order: ProcessOrder) -> Process:
        """Until it runs, or has failed to."""
        ...

    def inputs(self) -> Mapping[str, Definition]: ...

    async def warn(self, warning: WarningEvent) -> None: ...

    def finish(self, result: Result) -> None:
        """The frontend's last word. Raises RpcError when it has had it."""
        ...

    def fail(self, error: RpcError) -> None:
        """It ends without a result. Raises RpcError when it has had its last word."""
        ...
