"""A `Builder` that builds nothing and remembers what it was asked, and a way to run the program on it.

builder = FakeBuilder(events=[...], outcome=BuildOutcome(...))
ran = run_cli(builder, "build", "-t", "app", str(directory))
assert ran.status == 0 and builder.requests[0].exports == (...)
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from buildengine.builder import (
    BuildOutcome,
    BuildRequest,
    Damage,
    ImageInfo,
    PrunePolicy,
    PulledImage,
    PullRequest,
    RunnablePlatform,
    ServedRegistry,
    ServedRequest,
    StoreCheck,
    UsageInfo,
)
from buildengine.cli.app import App
from buildengine.cli.main import main
from buildengine.config import Config
from buildengine.digest import Digest
from buildengine.errors import SourceError
from buildengine.events import Event, EventSink
from buildengine.platform import Platform


@dataclass
class FakeImages:
    """The image store of a FakeBuilder. `calls` are the changes that were asked for."""

    infos: list[ImageInfo] = field(default_factory=list)
    documents: dict[str, Mapping[str, object]] = field(default_factory=dict)
    histories: dict[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    archive: bytes = b"an archive"
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def list(self) -> Sequence[ImageInfo]:
        return tuple(self.infos)

    def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]:
        if reference not in self.documents:
            raise SourceError(f"there is no image {reference!r}")
        return self.documents[reference]

    def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]:
        if reference not in self.histories:
            raise SourceError(f"there is no image {reference!r}")
        return self.histories[reference]

    def tag(self, source: str, target: str) -> None:
        self.calls.append(("tag", source, target))

    def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        if not any(reference in info.name for info in self.infos):
            raise SourceError(f"there is no image {reference!r}")
        self.calls.append(("remove", reference, force))
        return [f"Untagged: {reference}"]

    def prune(self, *, all: bool = False) -> Sequence[ImageInfo]:
        self.calls.append(("prune", all))
        return [info for info in self.infos if all or not info.name]

    def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None:
        self.calls.append(("save", *references))
        write(self.archive)

    def load(self, read: Callable[[int], bytes]) -> Sequence[str]:
        self.calls.append(("load", read(1 << 20)))
        return ["docker.io/library/app:latest"]


@dataclass
class FakeBuilder:
    """`events` are told during a build; then `error` is raised or `outcome` returned."""

    events: Sequence[Event] = ()
    outcome: BuildOutcome = field(
        default_factory=lambda: BuildOutcome(
            ref="", metadata={"containerimage.config.digest": Digest.sha256(b"config")}
        )
    )
    error: BaseException | None = None
    usage: Sequence[UsageInfo] = ()
    damages: Sequence[Damage] = ()
    images: FakeImages = field(default_factory=FakeImages)
    requests: list[BuildRequest] = field(default_factory=list)
    policies: list[PrunePolicy] = field(default_factory=list)
    filters: list[Sequence[str]] = field(default_factory=list)
    configs: list[Config] = field(default_factory=list)
    runnable: Sequence[RunnablePlatform] = ()
    registries: list[ServedRegistry] = field(default_factory=list)
    served: Sequence[ServedRequest] = ()
    pushes: list[tuple[str, ...]] = field(default_factory=list)
    pulls: list[PullRequest] = field(default_factory=list)
    layers: Sequence[tuple[Digest, bool]] = ()
    pulled: PulledImage = field(
        default_factory=lambda: PulledImage(
            name="docker.io/library/app:latest", digest=Digest.sha256(b"app"), is_new=True
        )
    )
    is_open: bool = False

    def build(
        self, request: BuildRequest, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> BuildOutcome:
        assert self.is_open
        self.requests.append(request)
        for event in self.events:
            on_event(event)
            if on_tick is not None:
                on_tick()
        if self.error is not None:
            raise self.error
        return replace(self.outcome, ref=request.ref)

    def push(
        self,
        reference: str,
        names: Sequence[str],
        on_event: EventSink,
        on_tick: Callable[[], None] | None = None,
    ) -> Sequence[str]:
        self.pushes.append((reference, *names))
        for event in self.events:
            on_event(event)
        if self.error is not None:
            raise self.error
        return [f"{name}@{Digest.sha256(reference.encode())}" for name in names or [reference]]

    def pull(self, request: PullRequest, on_layer: Callable[[Digest, bool], object]) -> PulledImage:
        self.pulls.append(request)
        for digest, fetched in self.layers:
            on_layer(digest, fetched)
        if self.error is not None:
            raise self.error
        return self.pulled

    def disk_usage(self, filters: Sequence[str] = ()) -> Sequence[UsageInfo]:
        self.filters.append(filters)
        return self.usage

    def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None:
        self.policies.append(policy)
        for record in self.usage:
            on_record(record)

    def verify_store(self) -> StoreCheck:
        return StoreCheck(root="/var/lib/pybuild", damages=self.damages)

    def platforms(self) -> Sequence[RunnablePlatform]:
        return self.runnable

    def serve_registry(
        self, registry: ServedRegistry, on_ready: Callable[[str], None], on_request: Callable[[ServedRequest], None]
    ) -> None:
        self.registries.append(registry)
        on_ready("http://127.0.0.1:5000")
        for request in self.served:
            on_request(request)

    @contextmanager
    def open(self, config: Config) -> Iterator[FakeBuilder]:
        self.configs.append(config)
        self.is_open = True
        try:
            yield self
        finally:
            self.is_open = False


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    status: int
    stdout: str
    stderr: str


def run_cli(builder: FakeBuilder, *args: str, stdin: bytes = b"", app: App | None = None) -> Ran:
    """Run `pybuild ARGS` in this process on `builder`, or on `app`."""
    streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (stdin, b"", b"")]
    saved = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = streams
    try:
        status = main(args, app or App(builder.open))
        for stream in streams[1:]:
            stream.flush()
        printed = [stream.buffer.getvalue().decode(errors="surrogateescape") for stream in streams[1:]]
    finally:
        sys.stdin, sys.stdout, sys.stderr = saved
    return Ran(status=status, stdout=printed[0], stderr=printed[1])
