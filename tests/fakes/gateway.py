"""A gateway without an engine: files of local directories and downloads, image configs, and what was asked for.

It looks only at the source of a definition, so it can read files of anything that starts with one.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from buildengine.builder import CacheEntry
from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError, UserError
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.sourcepolicy import Policy
from frontends import catalog
from frontends.gateway import (
    USUAL_DETAILS,
    Details,
    FileInfo,
    Frontend,
    FrontendRequest,
    FrontendResult,
    NotAnImage,
    PlatformResult,
    ResolvedHttp,
    ResolvedImage,
    ResolvedSource,
)
from llb import codec
from llb.definition import Definition
from llb.ops import CopyAction, ExecOp, FileOp, MergeOp, Op, SourceOp

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64")
Files = Mapping[str, bytes]


def image_config(
    *, platform: Platform = AMD64, layers: int = 1, history: Sequence[dict[str, Any]] = (), **config: Any
) -> bytes:
    """An image config; keywords are fields of its `config` object."""
    return json.dumps({
        **platform.to_json(),
        "config": {"Env": ["PATH=/usr/bin"], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{n:064x}" for n in range(layers)]},
        "history": list(history),
    }).encode()  # fmt: skip


@dataclass(slots=True)
class FakeReference:
    definition: Definition
    files: Files

    async def evaluate(self) -> None:
        return

    async def read_file(self, path: str, *, limit: int = 16 << 20, offset: int = 0, length: int | None = None) -> bytes:
        data = self.files.get(path.lstrip("/"))
        if data is None:
            raise SourceError(f"{path}: no such file or directory")
        data = data[offset:][:length]
        if len(data) > limit:
            raise UserError(f"{path} is longer than {limit} bytes")
        return data

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[FileInfo]:
        prefix = path.strip("/") + "/" if path.strip("/") else ""
        below = [name[len(prefix) :] for name in self.files if name.startswith(prefix)]
        modes = {
            name.partition("/")[0]: stat.S_IFDIR | 0o755 if "/" in name else stat.S_IFREG | 0o644 for name in below
        }
        return [FileInfo(path=name, mode=mode) for name, mode in sorted(modes.items())]

    async def stat_file(self, path: str) -> FileInfo:
        data = await self.read_file(path)
        return FileInfo(path=path.rpartition("/")[2], mode=stat.S_IFREG | 0o644, size=len(data))


@dataclass(slots=True)
class FakeGateway:
    """`trees` by source identifier (`local://context`, a URL), `images` by full reference; `replaced` is what a source
    policy puts in the place of a source, by identifiers. `find` and `session` are for nested frontends."""

    trees: Mapping[str, Files] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    solved: list[Definition] = field(default_factory=list)
    resolved: list[tuple[str, Platform | None, str]] = field(default_factory=list)
    resolving: list[str] = field(default_factory=list)
    warnings: list[WarningEvent] = field(default_factory=list)
    caches: list[CacheEntry] = field(default_factory=list)
    find: Callable[[str], Frontend] = catalog.find
    session: str = ""

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> FakeReference:
        self.solved.append(definition)
        payload = codec.decode(definition.ops[0]).payload
        identifier = payload.identifier if isinstance(payload, SourceOp) else ""
        return FakeReference(definition=definition, files=self.trees.get(identifier, {}))

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        asked = SourceOp(identifier=f"docker-image://{reference}")
        found = await self.resolve_source(asked, platform=platform, mode=mode, name=name)
        if not isinstance(found, ResolvedImage):
            raise NotAnImage(reference, found.source)
        return found

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
        reference = source.identifier.partition("://")[2]
        self.resolved.append((reference, platform, mode))
        self.resolving.append(name)
        source = SourceOp(identifier=self.replaced.get(source.identifier, source.identifier), attrs=source.attrs)
        if source.identifier.startswith("https://"):
            return ResolvedHttp(source=source, checksum=Digest.sha256(b""), filename="")
        reference = source.identifier.partition("://")[2]
        config = self.images.get(f"{reference} {platform}", self.images.get(reference))
        if config is None:
            raise RegistryError(f"{reference}: not found", status=404)
        return ResolvedImage(source=source, digest=Digest.sha256(config), config=config)

    async def run_frontend(
        self, name: str, options: Mapping[str, str], inputs: Mapping[str, Definition] = MappingProxyType({})
    ) -> FrontendResult:
        outer = FrontendRequest(options={}, platforms=(AMD64,), build_platform=AMD64, session=self.session)
        return await self.find(name).build(self, outer.nested(options, inputs))

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        self.caches += caches

    def warn(self, warning: WarningEvent) -> None:
        self.warnings.append(warning)


BASES = {
    "docker.io/library/busybox:latest": image_config(Cmd=["sh"]),
    "docker.io/library/alpine:latest": image_config(Cmd=["/bin/sh"]),
    "docker.io/library/golang:1": image_config(Env=["PATH=/usr/local/go/bin:/usr/bin", "GOPATH=/go"], WorkingDir="/go"),
}


def gateway(
    dockerfile: str | bytes, *, files: Files | None = None, images: Mapping[str, bytes] | None = None
) -> FakeGateway:
    """A gateway of a client whose directory holds this Dockerfile and `files`."""
    data = dockerfile.encode() if isinstance(dockerfile, str) else dockerfile
    return FakeGateway(
        trees={"local://dockerfile": {"Dockerfile": data, **(files or {})}, "local://context": files or {}},
        images={**BASES, **(images or {})},
    )


def request(options: Mapping[str, str] | None = None, *platforms: Platform) -> FrontendRequest:
    return FrontendRequest(options=options or {}, platforms=platforms or (AMD64,), build_platform=AMD64)


# --- looking at results ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation of a definition with what is said of it."""

    op: Op
    name: str
    digest: Digest
    lines: tuple[int, ...]
    ignore_cache: bool
    definition: Definition

    @property
    def exec(self) -> ExecOp:
        assert isinstance(self.op.payload, ExecOp)
        return self.op.payload

    @property
    def file(self) -> FileOp:
        assert isinstance(self.op.payload, FileOp)
        return self.op.payload

    @property
    def source(self) -> SourceOp:
        assert isinstance(self.op.payload, SourceOp)
        return self.op.payload

    @property
    def copies(self) -> list[CopyAction]:
        return [step.action for step in self.file.actions if isinstance(step.action, CopyAction)]


def nodes(definition: Definition | None) -> list[Node]:
    """The operations but the terminal one, inputs first."""
    if definition is None:
        return []
    found = []
    for digest, data in list(zip(definition.digests(), definition.ops, strict=True))[:-1]:
        metadata = definition.metadata[digest]
        ranges = [r for place in definition.source.places.get(digest, ()) for r in place.ranges]
        found.append(
            Node(
                op=codec.decode(data),
                name=metadata.description.get("llb.customname", ""),
                digest=digest,
                lines=tuple(sorted({r.start_line for r in ranges})),
                ignore_cache=metadata.ignore_cache,
                definition=definition,
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What the frontend made of a Dockerfile, easy to look at."""

    result: FrontendResult
    gateway: FakeGateway

    @property
    def only(self) -> PlatformResult:
        (single,) = self.result.results
        return single

    @property
    def nodes(self) -> list[Node]:
        return nodes(self.only.definition)

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.nodes]

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.only.config)["config"])

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.only.config))

    @property
    def history(self) -> list[str]:
        return [entry["created_by"] for entry in self.document.get("history", [])]

    @property
    def findings(self) -> list[str]:
        return [warned.message for warned in self.gateway.warnings]

    def node(self, start: str) -> Node:
        """The operation whose name starts with, or contains, this."""
        return next(node for node in self.nodes if start in node.name)

    def inputs(self, node: Node) -> list[Node]:
        by_digest = {n.digest: n for n in self.nodes}
        return [by_digest[edge.digest] for edge in node.op.inputs]


def is_merge(node: Node) -> bool:
    return isinstance(node.op.payload, MergeOp)


async def build(
    dockerfile: str | bytes,
    options: Mapping[str, str] | None = None,
    *platforms: Platform,
    files: Files | None = None,
    images: Mapping[str, bytes] | None = None,
) -> Built:
    from frontends.dockerfile.build import DockerfileFrontend

    fake = gateway(dockerfile, files=files, images=images)
    return Built(result=await DockerfileFrontend().build(fake, request(options, *platforms)), gateway=fake)
