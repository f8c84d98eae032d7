"""A gateway without an engine: the client's directory, images and downloads are what a test says; trees are worked out
in memory.

    gateway = FakeGateway(files={"app.yaml": "port: 80"}, images={"nginx": image_config(Cmd=["nginx"])})

What a frontend asks for and nobody has given fails as it would in a build, with a hint for the test's author.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from buildengine import reference
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
    ResolvedDirectory,
    ResolvedGit,
    ResolvedHttp,
    ResolvedImage,
    ResolvedSource,
    image_of,
)
from frontends.testing import trees
from frontends.testing.trees import Given, Tree
from llb.definition import Definition
from llb.graph import Node
from llb.ops import ExecOp, SourceOp

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64")
USUAL_REQUEST = FrontendRequest(options={}, platforms=(AMD64,), build_platform=AMD64)
_NO_INPUTS: Mapping[str, Definition] = MappingProxyType({})
_BESIDE = "local://dockerfile"


def image_config(
    *, platform: Platform | None = None, layers: int = 1, history: Sequence[Mapping[str, Any]] = (), **config: Any
) -> bytes:
    """An image config as a registry has it; keywords are fields of its `config` object: `Cmd`, `Env`, `User`, ...

    Without a platform it is the config of whatever platform is asked for. `layers` is how many it has.
    """
    return json.dumps({
        **(platform.to_json() if platform else {}),
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{number:064x}" for number in range(layers)]},
        "history": list(history),
    }).encode()  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolving:
    """That somebody wanted to know what a source is; see `Gateway.resolve_source`."""

    identifier: str
    platform: Platform | None
    mode: str
    name: str


@dataclass(slots=True)
class FakeGateway:
    """`files` are the client's directory, and what is beside the build file unless `beside` says otherwise.

    `images`: configs by reference, `nginx` or `nginx linux/arm64`. `sources`: the files of any other source, by its
    identifier: `https://example.org/tool`, `docker-image://docker.io/library/nginx:latest`. `leaves`: the files that a
    command leaves, by a part of its step's name or of the command: `{"make": {"/out/app": b"..."}}`. `frontends`: what
    `run_frontend` finds by name besides the ones that are built in; they are asked on behalf of `request`.

    What the gateway was asked is in `solved`, `resolved`, `caches` and `warnings`, each in its order.
    """

    files: Given = field(default_factory=dict)
    beside: Given | None = None
    images: Mapping[str, bytes] = field(default_factory=dict)
    sources: Mapping[str, Given] = field(default_factory=dict)
    leaves: Mapping[str, Given] = field(default_factory=dict)
    frontends: Mapping[str, Frontend] = field(default_factory=dict)
    request: FrontendRequest = USUAL_REQUEST
    solved: list[Definition] = field(default_factory=list)
    resolved: list[Resolving] = field(default_factory=list)
    caches: list[CacheEntry] = field(default_factory=list)
    warnings: list[WarningEvent] = field(default_factory=list)

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> FakeReference:
        self.solved.append(definition)
        return FakeReference(definition=definition, gateway=self)

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        return await image_of(self, reference, platform=platform, mode=mode, name=name)

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
        self.resolved.append(Resolving(identifier=source.identifier, platform=platform, mode=mode, name=name))
        scheme, _, rest = source.identifier.partition("://")
        match scheme:
            case "docker-image":
                config = self._config(rest, platform or AMD64)
                return ResolvedImage(source=source, digest=Digest.sha256(config), config=config)
            case "http" | "https":
                (data,) = [entry.data for entry in self.tree(source).values()]
                return ResolvedHttp(source=source, checksum=Digest.sha256(data), filename=_filename(source))
            case "git":
                commit = Digest.sha256(source.identifier.encode()).hex[:40]
                return ResolvedGit(source=source, ref="HEAD", checksum=commit, commit_checksum=commit)
            case _:
                return ResolvedDirectory(source=source)

    async def run_frontend(
        self, name: str, options: Mapping[str, str], inputs: Mapping[str, Definition] = _NO_INPUTS
    ) -> FrontendResult:
        """The frontends that are built in run here as well."""
        frontend = self.frontends[name] if name in self.frontends else catalog.find(name)
        return await frontend.build(self, self.request.nested(options, inputs))

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        """Nothing is found in them."""
        self.caches += caches

    def warn(self, warning: WarningEvent) -> None:
        self.warnings.append(warning)

    # --- what there is -----------------------------------------------------------------------------------------

    def tree(self, source: SourceOp) -> Tree:
        """The files of a source, as far as it asks for them. Raises SourceError for one that nobody has given."""
        if source.identifier.startswith("local://"):
            include, exclude, follow = (
                json.loads(source.attrs.get(f"local.{name}") or "[]")
                for name in ("includepattern", "excludepatterns", "followpaths")
            )
            return trees.matching(trees.tree(self._directory(source.identifier)), [*include, *follow], exclude)
        for known in (source.identifier, source.identifier.partition("@")[0]):
            if known in self.sources:
                return trees.tree(self.sources[known])
        if source.identifier.startswith("docker-image://"):
            return {}
        hint = f"give it to the fake: sources={{{source.identifier!r}: {{{_filename(source)!r}: ...}}}}"
        raise SourceError(f"{source.identifier}: not found", hint=hint)

    def left(self, node: Node) -> Mapping[str, bytes]:
        """What a command leaves."""
        command = " ".join(node.op.payload.meta.args) if isinstance(node.op.payload, ExecOp) else ""
        for part, files in self.leaves.items():
            if part in node.name or part in command:
                return {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        return {}

    def _directory(self, identifier: str) -> Given:
        if identifier in self.sources:
            return self.sources[identifier]
        return self.beside if identifier == _BESIDE and self.beside is not None else self.files

    def _image(self, wanted: str, platform: Platform) -> bytes | None:
        """The config that was given for this platform, else for any; whichever way the reference is written."""
        suffixes = (f" {platform}", "")
        written = [f"{wanted}{suffix}" for suffix in suffixes if f"{wanted}{suffix}" in self.images]
        for suffix in () if written else suffixes:
            for known in self.images:
                name, separator, only = known.partition(" ")
                if f"{separator}{only}" == suffix and reference.normalize(name) == wanted:
                    written.append(known)
        return self.images[written[0]] if written else None

    def _config(self, wanted: str, platform: Platform) -> bytes:
        found = self._image(wanted, platform) or self._image(wanted.partition("@")[0], platform)
        if found is not None:
            named = b'"architecture"' in found
            return found if named else json.dumps({**platform.to_json(), **json.loads(found)}).encode()
        hint = f"give it to the fake: images={{{wanted!r}: image_config()}}"
        raise RegistryError(f"{wanted}: not found", status=404, hint=hint)


def _filename(source: SourceOp) -> str:
    return source.attrs.get("http.filename") or source.identifier.rpartition("/")[2]


@dataclass(slots=True, kw_only=True)
class FakeReference:
    """A tree that is worked out when somebody looks into it."""

    definition: Definition
    gateway: FakeGateway
    worked_out: Tree | None = None

    async def evaluate(self) -> None:
        self.tree()

    async def read_file(self, path: str, *, limit: int = 16 << 20, offset: int = 0, length: int | None = None) -> bytes:
        entry = self._entry(path)
        if not stat.S_ISREG(entry.mode):
            raise SourceError(f"{path}: not a regular file")
        data = entry.data[offset:][:length]
        if len(data) > limit:
            raise UserError(f"{path} is longer than {limit} bytes")
        return data

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[FileInfo]:
        prefix = f"{trees.clean(path)}/".lstrip("/")
        if prefix:
            self._entry(path)
        names = [name for name in self.tree() if name.startswith(prefix) and "/" not in name[len(prefix) :]]
        chosen = trees.matching(
            {name[len(prefix) :]: self.tree()[name] for name in names}, [include] * bool(include), ()
        )
        return [_info(name, entry) for name, entry in sorted(chosen.items())]

    async def stat_file(self, path: str) -> FileInfo:
        return _info(trees.clean(path).rpartition("/")[2], self._entry(path))

    def tree(self) -> Tree:
        if self.worked_out is None:
            self.worked_out = trees.evaluate(self.definition, self.gateway.tree, self.gateway.left)
        return self.worked_out

    def _entry(self, path: str) -> trees.Entry:
        name = trees.clean(path)
        entry = self.tree().get(name, None if name else trees.Entry(mode=stat.S_IFDIR | 0o755))
        for _ in range(40):
            if entry is None or not entry.link:
                break
            name = trees.clean(entry.link if entry.link.startswith("/") else f"{name.rpartition('/')[0]}/{entry.link}")
            entry = self.tree().get(name)
        if entry is None:
            raise SourceError(f"{path}: no such file or directory")
        return entry


def _info(name: str, entry: trees.Entry) -> FileInfo:
    return FileInfo(path=name, mode=entry.mode, size=len(entry.data), link=entry.link)
