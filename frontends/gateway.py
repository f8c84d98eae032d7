"""What a frontend may ask of the engine, and what it gives back. Frontends see `llb` and this file only.

A frontend turns a build file into LLB. It runs once per platform in the engine (or in a container, later)
and talks to the engine through `Gateway`: read files of a solved definition, resolve an image's config, warn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from buildengine import platform as platforms
from buildengine.builder import CacheEntry
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb.definition import Definition
from llb.ops import SourceOp

if TYPE_CHECKING:  # few builds have any
    from buildengine.sourcepolicy import Policy

if TYPE_CHECKING:  # few builds attest anything
    from buildengine.attestation import Claim

_NO_INPUTS: Mapping[str, Definition] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """What lstat(2) says of a file. `path` is its name in its directory, `link` a symlink's target.

    `mode` is st_mode, `modified` nanoseconds since the epoch, `device` (major, minor).
    """

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    modified: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


class Reference(Protocol):
    """A definition that the engine has accepted; to read its files solves it. All but `evaluate` raise SourceError for
    what is not there."""

    @property
    def definition(self) -> Definition:
        """What is solved: what source policies have made of what was accepted."""
        ...

    async def evaluate(self) -> None:
        """Solve it, if nobody has yet."""
        ...

    async def read_file(self, path: str, *, limit: int = 16 << 20, offset: int = 0, length: int | None = None) -> bytes:
        """A regular file from `offset` on, `length` bytes if so many are there, else all. UserError beyond `limit`."""
        ...

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[FileInfo]:
        """What a directory holds, sorted by name. `include` is a pattern of .dockerignore for the names."""
        ...

    async def stat_file(self, path: str) -> FileInfo:
        """A symlink at the end is followed inside the tree. `path` of what is found is its name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainBlob:
    """A document of an attestation chain, verified."""

    media_type: str
    digest: Digest
    annotations: Mapping[str, str] = field(default_factory=dict)
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationChain:
    """The way from an image to what signs its attestations. None: there is no such thing.

    `blobs` are the index `root`, the attestation manifest, the signature manifest and its layers: not the image's own
    manifest, which proves nothing.
    """

    root: Digest
    image_manifest: Digest
    attestation_manifest: Digest | None = None
    signature_manifest: Digest | None = None
    blobs: tuple[ChainBlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """An image, resolved once for the whole build. `config` is the raw image config.

    `source` of this and the next two is what was resolved: what a source policy has put in the place of what was asked.
    `config` and `chain` are there when they were asked for.
    """

    source: SourceOp
    digest: Digest
    config: bytes
    chain: AttestationChain | None = None

    @property
    def reference(self) -> str:
        return self.source.identifier.partition("://")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedGit:
    """`checksum` is what `ref` names: a commit, or an annotated tag of `commit_checksum`.

    The objects are as `git cat-file` has them, when they were asked for; b"" for a tag that there is not.
    """

    source: SourceOp
    ref: str
    checksum: str
    commit_checksum: str
    commit_object: bytes = b""
    tag_object: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedHttp:
    """`modified` is the server's Last-Modified in seconds since the epoch."""

    source: SourceOp
    checksum: Digest
    filename: str
    modified: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDirectory:
    """A directory of the client's: what it holds now is known when it is read."""

    source: SourceOp


ResolvedSource = ResolvedImage | ResolvedGit | ResolvedHttp | ResolvedDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is wanted of a source besides its digest: the `config` of an image and its attestation `chain`, the
    `objects` of a git repository."""

    config: bool = True
    chain: bool = False
    objects: bool = False


USUAL_DETAILS = Details()


class NotAnImage(UserError):
    """A source policy has put something else in the place of the image `reference`."""

    def __init__(self, reference: str, source: SourceOp) -> None:
        super().__init__(f"ref mutated by policy to non-image: docker-image://{reference} -> {source.identifier}")
        self.source = source


class Gateway(Protocol):
    """`policies` are source policies for one question, besides the build's own."""

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> Reference: ...

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        """Raises SourceError, NotAnImage. `mode`: `default`, `pull` (ask the registry) or `local` (the store first).

        `name` is what progress calls it. Without a tag and a digest, `reference` means `latest`.
        """
        ...

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str = "default",
        name: str = "",
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource:
        """What any source is now, without fetching it. Raises SourceError."""
        ...

    async def run_frontend(
        self, name: str, options: Mapping[str, str], inputs: Mapping[str, Definition] = _NO_INPUTS
    ) -> FrontendResult:
        """What the frontend `name` makes of these options and inputs. Raises BuildError: UserError for one that there
        is not. What it asks for is told apart in the provenance."""
        ...

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        """What is solved from now on is looked for there as well. One that cannot be read is no failure."""
        ...

    def warn(self, warning: WarningEvent) -> None:
        """Its `vertex` is the digest of the step that it is about; "" for the build file itself."""
        ...


async def image_of(gateway: Gateway, reference: str, *, platform: Platform, mode: str, name: str) -> ResolvedImage:
    """`resolve_image` by `resolve_source`: what every gateway does that has no other way."""
    asked = SourceOp(identifier=f"docker-image://{reference}")
    found = await gateway.resolve_source(asked, platform=platform, mode=mode, name=name)
    if not isinstance(found, ResolvedImage):
        raise NotAnImage(reference, found.source)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendRequest:
    """`options` are BuildKit's frontend attributes: `filename`, `target`, `build-arg:X`, `label:X`, `no-cache`,
    `context`, `add-hosts`, `force-network-mode`, `shm-size`, `ulimit`, `image-resolve-mode`, ...

    `platforms` are the targets (one result each); `build_platform` is where RUN steps run natively. `session` is the
    client's: it is part of the identity of its directories, since `context` of two builds is not one.
    """

    options: Mapping[str, str]
    platforms: tuple[Platform, ...]
    build_platform: Platform
    session: str = ""
    inputs: Mapping[str, Definition] = field(default_factory=dict)

    def nested(self, options: Mapping[str, str], inputs: Mapping[str, Definition]) -> FrontendRequest:
        """What a frontend is asked that runs for this one: for the platforms that its own options name, of the same
        client's directories. Raises UserError."""
        named = [each.strip() for each in options.get("platform", "").split(",")]
        wanted = tuple(dict.fromkeys(platforms.parse(each) for each in named if each))
        return FrontendRequest(
            options=options,
            platforms=wanted or (self.build_platform,),
            build_platform=self.build_platform,
            session=self.session,
            inputs=inputs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """Something that is attested of a result. Its content is in the tree of `definition`, None where nobody said."""

    claim: Claim
    definition: Definition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformResult:
    """`definition` None is the empty image; `config` is the image config JSON (its rootfs does not count), b"" for the
    usual one.

    `platform` is what was asked for; the descriptor of the image may say more, if the config does. `key` is what a
    set calls it when that is not the platform. `base_config` is the config of the image that it is based on, b"" where
    there is none or nobody said.
    """

    platform: Platform
    key: str = ""
    definition: Definition | None
    config: bytes
    base_config: bytes = b""
    attestations: tuple[Attestation, ...] = ()

    @property
    def id(self) -> str:
        """What a set calls it."""
        return self.key or str(self.platform)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendResult:
    """`multi_platform`: a set of images by platform, though there may be one only."""

    results: tuple[PlatformResult, ...]
    multi_platform: bool = False
    metadata: Mapping[str, bytes] = field(default_factory=dict)


class Frontend(Protocol):
    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult: ...
