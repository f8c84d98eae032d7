"""The seam between the command line and an engine: values in, values out, one Protocol.

`Builder` is implemented by the engine inside the command (`buildengine.daemon.local_builder`) and by the client of
a daemon (`buildengine.client.remote_builder`). Calls block; events arrive through a callback on the calling thread's
behalf. Whatever a user can meet is raised as a BuildError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from buildengine.digest import Digest
from buildengine.events import EventSink
from buildengine.platform import Platform
from buildengine.values import dataclass

if TYPE_CHECKING:  # few builds have any
    from buildengine.sourcepolicy import Policy

SESSION_HOST = "buildkit-session"  # source/http/transport.go
DOCKERFILE, PYTHON = "dockerfile.v0", "python.v0"  # frontends: of Dockerfiles, and of build files in Python
REQUEST_ID = "requestid"  # the option that makes a question to the frontend of a build
ATTEST_OPTIONS = ("attest:", "build-arg:BUILDKIT_ATTEST_")  # what they begin with: frontend/attestations/parse.go
ANNOTATION_SCOPES = ("manifest", "manifest-descriptor", "index", "index-descriptor")  # exptypes/annotations.go


def frontend_of(filename: str) -> str:
    """The frontend that a build file is for, which its name says."""
    return PYTHON if filename.endswith(".py") else DOCKERFILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One `--output`: `type` is image, oci, docker, tar or local; `dest` a path, `-` or None."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    dest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A build cache elsewhere, to read from or to write to: `type` is registry, inline, local, ..."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """One `--secret`: the file or environment variable that holds it."""

    id: str
    file: Path | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSource:
    """One `--ssh`: an agent's socket. Empty paths mean that there is no agent to forward."""

    id: str = "default"
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build. `options` are the frontend's attributes (build args, labels, target, ... as BuildKit names them).

    The context is one of: the directory `context` of `directories` (host paths by local name; the Dockerfile is
    in the directory `dockerfile`), a git or http URL in the option `context`, the archive that
    `context_archive` reads (a tar, compressed or not, at most n bytes a call, b"" at its end), or, when there
    is none of these, an empty directory. `inline_dockerfile` is a Dockerfile that came on standard input: it
    takes the place of the file `filename` wherever that would be looked for. `layouts` are the directories of OCI
    layouts, by the names that sources give them (`oci-layout://NAME@DIGEST`). `explain`: an ExplainEvent follows for
    each step.
    """

    ref: str
    frontend: str = DOCKERFILE
    options: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, Path] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    exports: tuple[Export, ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshSource, ...] = ()
    entitlements: frozenset[str] = frozenset()
    cache_imports: tuple[CacheEntry, ...] = ()
    cache_exports: tuple[CacheEntry, ...] = ()
    source_policy: Policy | None = None
    layouts: Mapping[str, Path] = field(default_factory=dict)
    explain: bool = False
    inline_dockerfile: bytes | None = None
    context_archive: Callable[[int], bytes] | None = field(default=None, repr=False, compare=False)


def with_upload(request: BuildRequest) -> BuildRequest:
    """An archive for a context, as frontends know it: an http URL of a host that only the build's session knows."""
    if request.context_archive is None:
        return request
    return replace(request, options={**request.options, "context": f"http://{SESSION_HOST}/{request.ref}"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """The predicate of an in-toto statement, as JSON, and the type of it."""

    type: str
    data: bytes = field(repr=False)


def asks_to_attest(options: Mapping[str, str]) -> bool:
    """Whether a build with these options is to attest something of its results."""
    return any(name.startswith(ATTEST_OPTIONS) for name in options)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """`metadata` is the exporter response: `containerimage.digest`, `containerimage.config.digest`, ...

    `exported` is what each of the exports has said, by its place in the request. `provenance` is that of each result,
    by platform or "", where it was wanted for the history. `answer` is what the frontend has said where it was asked a
    question instead (`REQUEST_ID`): `result.json`, `result.txt`, ...
    """

    ref: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    exported: tuple[Mapping[str, str], ...] = ()
    image_digest: Digest | None = None
    provenance: Mapping[str, Predicate] = field(default_factory=dict)
    answer: Mapping[str, bytes] = field(default_factory=dict)


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
    """One name of one image in the local store; `name` is "" for a dangling image.

    `digest` is the manifest's or index's. `config_digest` is what people know as the image id; None for an index.
    """

    name: str
    digest: Digest
    config_digest: Digest | None = None
    created: float
    size: int
    platforms: tuple[Platform, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """One `pull`: `platform` None is this host's, with `all_platforms` it is not looked at."""

    reference: str
    platform: Platform | None = None
    all_platforms: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """`name` is the whole name it has in the local store; `is_new` says that something had to be fetched for it."""

    name: str
    digest: Digest
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What `debug verify-store` found wrong: where, and what."""

    where: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCheck:
    """The state directory that was looked at, and what is wrong there."""

    root: str
    damages: Sequence[Damage] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnablePlatform:
    """How steps for a platform run on this host; `how` is "" when they do not, for `reason`, and `hint` may help."""

    platform: Platform
    how: str = ""
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRegistry:
    """How `registry serve` serves. `address` is host:port; port 0 is any free one."""

    address: str = "127.0.0.1:5000"
    read_only: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    htpasswd: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRequest:
    """One request to the registry of our own, after its answer. Bytes are those of the bodies.

    `number` counts the requests as they begin. `status` 0: no answer was begun. `problem` is what went wrong inside,
    or that the client has gone; with number 0 it is of no request.
    """

    number: int = 0
    time: float
    remote: str = ""
    method: str = ""
    target: str = ""
    status: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    agent: str = ""
    problem: str = ""


class Images(Protocol):
    """The local image store. A reference is a name, or the id or digest of an image or a prefix of one."""

    def list(self) -> Sequence[ImageInfo]: ...

    def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]:
        """A JSON object in the shape of `docker image inspect`: Id, RepoTags, RepoDigests, Created, Architecture,
        Os, Size, Config, RootFS (its Layers are diff ids), ..., and our `Layers`: one object a layer with
        DiffID, Digest (of the compressed blob), Size and MediaType; and `Platforms`, all that the image is for.

        Of an index it is the image for `platform`, else the one that fits this host best, else the first.
        """
        ...

    def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]:
        """Newest first, in the shape of docker's API: Id, Created (seconds), CreatedBy, Size, Comment."""
        ...

    def tag(self, source: str, target: str) -> None: ...

    def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        """What was untagged and deleted, one line each."""
        ...

    def prune(self, *, all: bool = False) -> Sequence[ImageInfo]: ...

    def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None: ...

    def load(self, read: Callable[[int], bytes]) -> Sequence[str]: ...


class Builder(Protocol):
    def build(
        self, request: BuildRequest, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> BuildOutcome:
        """Raises BuildError. KeyboardInterrupt ends everything, cleanly, and is raised again.

        `on_tick` is called about ten times a second while the build runs, on the thread of `on_event`: a
        clock moves on although nothing happens.
        """
        ...

    def push(
        self,
        reference: str,
        names: Sequence[str],
        on_event: EventSink,
        on_tick: Callable[[], None] | None = None,
    ) -> Sequence[str]:
        """Push the image that `reference` means in the local store under each of `names`, or as `reference` itself.

        What was pushed, as people write it: `app:1@sha256:...`. `on_event` and `on_tick` as for `build`. Raises
        BuildError.
        """
        ...

    def pull(self, request: PullRequest, on_layer: Callable[[Digest, bool], object]) -> PulledImage:
        """Bring an image into the local store, with all its layers.

        `on_layer` is told each layer that is there now, and whether it was fetched.
        """
        ...

    def disk_usage(self, filters: Sequence[str] = ()) -> Sequence[UsageInfo]: ...

    def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None: ...

    def verify_store(self) -> StoreCheck: ...

    def platforms(self) -> Sequence[RunnablePlatform]: ...

    @property
    def images(self) -> Images: ...


class LocalBuilder(Builder, Protocol):
    """The engine inside the command, and what only a state directory of this host is good for."""

    def serve_registry(
        self, registry: ServedRegistry, on_ready: Callable[[str], None], on_request: Callable[[ServedRequest], None]
    ) -> None:
        """Serve the state directory's registry until SIGINT, SIGTERM or SIGHUP. `on_ready` is told its URL."""
        ...
