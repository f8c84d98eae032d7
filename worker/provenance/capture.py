"""What a result was made from: its sources, each with what it turned out to be, and what its steps had access to.

A pin is what the solver learned of a source when it computed its key: the digest of an image or a download, the
commit of a repository. Who has no pin was not looked at, and is no material.

Facts: BuildKit solver/llbsolver/provenance/capture.go, solver/llbsolver/provenance.go (captureProvenance),
source/*/identifier.go (Capture).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.reference import Reference, parse_repository
from buildengine.values import dataclass
from llb.graph import Graph, Node
from llb.ops import BuildOp, ExecOp, NetMode, SourceOp
from worker.sources.origin import GitOrigin, HttpOrigin, ImageOrigin, LayoutOrigin, LocalOrigin, parse

_T = TypeVar("_T")
_MASK = "xxxxx"

Pin = Callable[[Digest], str]
"""The pin of the source with this digest, "" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMaterial:
    """`is_local`: it came from no registry."""

    reference: str
    digest: str
    platform: Platform | None = None
    is_local: bool = False

    @property
    def identity(self) -> Hashable:
        """Features of the system tell no images of one index apart (moby/buildkit#4387)."""
        platform = None if self.platform is None else replace(self.platform, os_features=())
        return self.reference, self.is_local, platform


@dataclass(frozen=True, slots=True, kw_only=True)
class GitMaterial:
    """`url` has the ref as its fragment, and no credentials."""

    url: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMaterial:
    url: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A secret or an agent, by its id, that a step could have used."""

    id: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Each once, in the order found until `tidied`. `locals` are names of the client's directories.

    `network`: a step could reach the network. `incomplete`: something was used that cannot be told.
    """

    images: tuple[ImageMaterial, ...] = ()
    git: tuple[GitMaterial, ...] = ()
    http: tuple[HttpMaterial, ...] = ()
    locals: tuple[str, ...] = ()
    secrets: tuple[Access, ...] = ()
    ssh: tuple[Access, ...] = ()
    network: bool = False
    incomplete: bool = False

    @classmethod
    def of(cls, parts: Iterable[Capture]) -> Capture:
        """All of them: each thing once, as it came first."""
        every = [*parts]
        return cls(
            images=_each_once((one for part in every for one in part.images), lambda one: one.identity),
            git=_each_once((one for part in every for one in part.git), lambda one: one.url),
            http=_each_once((one for part in every for one in part.http), lambda one: one.url),
            locals=tuple(dict.fromkeys(name for part in every for name in part.locals)),
            secrets=_accesses(one for part in every for one in part.secrets),
            ssh=_accesses(one for part in every for one in part.ssh),
            network=any(part.network for part in every),
            incomplete=any(part.incomplete for part in every),
        )

    def tidied(self) -> Capture:
        """Sorted, and without the images that are there by their tag already."""
        named = [(image, _parsed(image.reference)) for image in self.images]
        by_tag = {_tagged(reference) for _, reference in named if reference and reference.digest is None}
        kept = [
            image
            for image, reference in named
            if reference is None or reference.digest is None or _tagged(reference) not in by_tag
        ]
        return replace(
            self,
            images=tuple(sorted(kept, key=lambda image: image.reference)),
            git=tuple(sorted(self.git, key=lambda one: one.url)),
            http=tuple(sorted(self.http, key=lambda one: one.url)),
            locals=tuple(sorted(self.locals)),
            secrets=tuple(sorted(self.secrets, key=lambda one: one.id)),
            ssh=tuple(sorted(self.ssh, key=lambda one: one.id)),
        )


def capture(graph: Graph, pin: Pin) -> Capture:
    """All that the result of `graph` was made from, the sources in the order of the graph."""
    return Capture.of(part for node in graph.nodes.values() if (part := _captured(node, pin)) is not None)


def _captured(node: Node, pin: Pin) -> Capture | None:
    match node.op.payload:
        case SourceOp() as op:
            return _source(op, node.op.platform, pin(node.digest))
        case ExecOp() as op:
            return _exec(op)
        case BuildOp():
            return Capture(incomplete=True)
        case _:
            return None


def _source(op: SourceOp, platform: Platform | None, pin: str) -> Capture | None:
    if not pin:
        return None
    match parse(op):
        case ImageOrigin(reference=reference):
            return Capture(images=(ImageMaterial(reference=reference, digest=pin, platform=platform),))
        case LayoutOrigin(reference=reference):
            image = ImageMaterial(reference=reference, digest=pin, platform=platform, is_local=True)
            return Capture(images=(image,))
        case GitOrigin() as origin:
            url = f"{origin.remote}#{origin.ref}" if origin.ref else origin.remote
            secrets = [id for id in (origin.auth_token_secret, origin.auth_header_secret) if id]
            return Capture(
                git=(GitMaterial(url=redacted(url), commit=pin),),
                secrets=tuple(Access(id=id, optional=True) for id in secrets),
                ssh=(Access(id=origin.ssh_socket, optional=True),) if origin.ssh_socket else (),
            )
        case HttpOrigin(url=url):
            return Capture(http=(HttpMaterial(url=redacted(url), digest=pin),))
        case LocalOrigin(name=name):
            return Capture(locals=(name,))


def _exec(op: ExecOp) -> Capture:
    secrets = [Access(id=each.id, optional=each.optional) for mount in op.mounts if (each := mount.secret)]
    secrets += [Access(id=each.id, optional=each.optional) for each in op.secret_env]
    agents = [Access(id=ssh.id or "default", optional=ssh.optional) for mount in op.mounts if (ssh := mount.ssh)]
    return Capture(secrets=_accesses(secrets), ssh=_accesses(agents), network=op.network is not NetMode.NONE)


def redacted(url: str) -> str:
    """`url` with masks for user and password, as BuildKit writes them (util/urlutil/redact.go).

    >>> redacted("https://me:secret@example.org/app.git")
    'https://xxxxx:xxxxx@example.org/app.git'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    name, colon, _ = user.partition(":")
    masked = f"{_MASK if name else ''}{':' + _MASK if colon else ''}"
    return url.replace(f"//{parts.netloc}", f"//{masked}@{host}", 1)


def _each_once(items: Iterable[_T], key: Callable[[_T], Hashable]) -> tuple[_T, ...]:
    found: dict[Hashable, _T] = {}
    for item in items:
        found.setdefault(key(item), item)
    return tuple(found.values())


def _accesses(accesses: Iterable[Access]) -> tuple[Access, ...]:
    """Optional is what nobody needs."""
    found: dict[str, Access] = {}
    for access in accesses:
        known = found.setdefault(access.id, access)
        if known.optional and not access.optional:
            found[access.id] = access
    return tuple(found.values())


def _parsed(reference: str) -> Reference | None:
    """None for what no registry could have."""
    try:
        return parse_repository(reference)
    except UserError:
        return None


def _tagged(reference: Reference) -> str:
    return f"{reference.name}:{reference.tag or 'latest'}"
