"""The seam between the command line and an engine: values in, values out, one Protocol.

`Builder` is implemented by the engine inside the command (`buildengine.daemon.local_builder`) and, later, by
the remote client. Calls block; events arrive through a callback on the calling thread's behalf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from buildengine.digest import Digest
from buildengine.events import EventSink
from buildengine.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One `--output`: `type` is image, oci, docker, tar or local; `dest` a path, `-` or None."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    dest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """One `--secret`: the file or environment variable that holds it."""

    id: str
    file: Path | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build. `options` are the frontend's attributes (build args, labels, target, ... as BuildKit names them).

    `directories` maps local names to host paths (`context`, `dockerfile`); `stdin_file` is a Dockerfile that
    came on standard input and takes the place of the file `filename` in the directory `dockerfile`.
    """

    ref: str
    frontend: str = "dockerfile.v0"
    options: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, Path] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    exports: tuple[Export, ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    entitlements: frozenset[str] = frozenset()
    inline_dockerfile: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """`metadata` is the exporter response: `containerimage.digest`, `containerimage.config.digest`, ..."""

    ref: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    image_digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageInfo:
    """One cache record as `du` lists it. Times are seconds since the epoch, sizes bytes."""

    id: str
    parents: tuple[str, ...] = ()
    kind: str = "regular"
    description: str = ""
    size: int = 0
    mutable: bool = False
    in_use: bool = False
    shared: bool = False
    created: float = 0.0
    last_used: float | None = None
    usage_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePolicy:
    """BuildKit's: what to spare. Durations in seconds, spaces in bytes; 0 means no limit."""

    all: bool = False
    filters: tuple[str, ...] = ()
    keep_duration: float = 0.0
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """One name of one image in the local store; `name` is "" for a dangling image."""

    name: str
    digest: Digest
    created: float
    size: int
    platforms: tuple[Platform, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What `debug verify-store` found wrong: where, and what."""

    where: str
    problem: str


class Images(Protocol):
    """The local image store."""

    def list(self) -> Sequence[ImageInfo]: ...

    def inspect(self, reference: str) -> Mapping[str, object]: ...

    def history(self, reference: str) -> Sequence[Mapping[str, object]]: ...

    def tag(self, source: str, target: str) -> None: ...

    def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        """What was untagged and deleted, one line each."""
        ...

    def prune(self, *, all: bool = False) -> Sequence[ImageInfo]: ...

    def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None: ...

    def load(self, read: Callable[[int], bytes]) -> Sequence[str]: ...


class Builder(Protocol):
    def build(self, request: BuildRequest, on_event: EventSink) -> BuildOutcome:
        """Raises BuildError. KeyboardInterrupt ends everything, cleanly, and is raised again."""
        ...

    def disk_usage(self, filters: Sequence[str] = ()) -> Sequence[UsageInfo]: ...

    def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None: ...

    def verify_store(self) -> Sequence[Damage]: ...

    @property
    def images(self) -> Images: ...
