"""A source op as a frozen value: which source, and every attribute read and checked.

Schemes and attributes are BuildKit's (solver/pb/attr.go). A client of a newer BuildKit may send attributes that
are not here; like BuildKit, they are passed over, since capabilities keep needed ones from being sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition, UserError
from buildengine.ids import LARGEST_ID
from buildengine.values import dataclass
from llb import giturl

if TYPE_CHECKING:
    from llb.ops import SourceOp

HEADERS_ALLOWED = ("accept", "user-agent")
_T = TypeVar("_T")
_MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrigin:
    """`docker-image://reference`. `resolve_mode` is default, pull or local; `layer_limit` 0 means all layers."""

    reference: str
    resolve_mode: str = "default"
    layer_limit: int = 0
    checksum: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutOrigin:
    """`oci-layout://name@digest`."""

    reference: str
    store: str = ""
    session: str = ""
    layer_limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOrigin:
    """`git://…#ref:subdir`. The `…_secret` are ids of secrets, `ssh_socket` of a forwarded agent."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    auth_header_secret: str = ""
    auth_token_secret: str = ""
    ssh_socket: str = ""
    known_hosts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOrigin:
    """`http(s)://…`. `mode` 0 means 0600; `auth_header_secret` "" means the host's own secrets, if any."""

    url: str
    checksum: Digest | None = None
    filename: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    auth_header_secret: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOrigin:
    """`local://name`: a directory of whoever started the build, and which part of it.

    `metadata_only`: of what `metadata_exceptions` do not match a client elsewhere sends the stats only.
    """

    name: str
    session: str = ""
    unique: str = ""
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    follow_paths: tuple[str, ...] = ()
    shared_key_hint: str = ""
    differ: str = "metadata"
    metadata_only: bool = False
    metadata_exceptions: tuple[str, ...] = ()


Origin = ImageOrigin | LayoutOrigin | GitOrigin | HttpOrigin | LocalOrigin


def parse(op: SourceOp) -> Origin:
    """What `op` means. Raises InvalidDefinition when its scheme is unknown or an attribute is wrong."""
    scheme, separator, rest = op.identifier.partition("://")
    reader = _SCHEMES.get(scheme) if separator else None
    if reader is None:
        raise InvalidDefinition(f"a source has the unknown scheme {scheme[:100]!r}")
    try:
        return reader(rest, _Attributes(op.attrs))
    except InvalidDefinition:
        raise
    except UserError as error:
        raise InvalidDefinition(error.message, hint=error.hint) from error


class _Attributes:
    """Attributes of one op, read with a check."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, default)

    def flag(self, name: str) -> bool:
        return self.values.get(name) == "true"

    def number(self, name: str, *, most: int) -> int:
        """As Go's strconv.ParseInt(text, 0, 64): decimal, 0x…, 0o… or a leading zero for octal."""
        text = self.values.get(name) or "0"
        octal = len(text) > 1 and text[0] == "0" and text.isdigit()
        try:
            value = int(text, 8 if octal else 0)
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise InvalidDefinition(f"attribute {name} is {text[:50]!r}, not a number from 0 to {most}")
        return value

    def layer_limit(self, name: str) -> int:
        """At least one layer; 0 where nobody says how many."""
        text = self.values.get(name, "")
        if text and not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _MOST_LAYERS):
            raise InvalidDefinition(f"invalid layer limit {text[:50]}", hint=f"a number from 1 to {_MOST_LAYERS}")
        return int(text or 0)

    def digest(self, name: str) -> Digest | None:
        text = self.values.get(name)
        return Digest.parse(text) if text else None

    def list(self, name: str) -> tuple[str, ...]:
        text = self.values.get(name)
        if not text:
            return ()
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise InvalidDefinition(f"attribute {name} is not a JSON list of strings")
        return tuple(items)


def _image(rest: str, attributes: _Attributes) -> ImageOrigin:
    mode = attributes.text("image.resolvemode", "default")
    if mode not in ("default", "pull", "local"):
        raise InvalidDefinition(f"attribute image.resolvemode is {mode[:50]!r}, not default, pull or local")
    return ImageOrigin(
        reference=rest,
        resolve_mode=mode,
        layer_limit=attributes.layer_limit("image.layerlimit"),
        checksum=attributes.digest("image.checksum"),
    )


def _layout(rest: str, attributes: _Attributes) -> LayoutOrigin:
    return LayoutOrigin(
        reference=rest,
        store=attributes.text("oci.store"),
        session=attributes.text("oci.session"),
        layer_limit=attributes.layer_limit("oci.layerlimit"),
    )


def _git(rest: str, attributes: _Attributes) -> GitOrigin:
    unmet = next((name for name in attributes.values if name.startswith("git.sig.")), None)
    if unmet is not None:  # never passed over: whoever asks for it would take what nobody has verified
        raise InvalidDefinition(
            f"attribute {unmet}: this engine does not verify signatures of commits",
            hint="have the client verify them: a source policy session is given the objects",
        )
    named = giturl.parse(rest if giturl.is_transport(rest) else "https://" + rest)
    full = attributes.text("git.fullurl") or named.remote
    remote = giturl.parse(full if giturl.is_transport(full) else "https://" + full).remote
    checksum = attributes.text("git.checksum")
    return GitOrigin(
        remote=remote,
        ref=giturl.check_ref(named.ref) if named.ref else "",
        subdir=named.subdir,
        checksum=giturl.check_checksum(checksum) if checksum else "",
        keep_git_dir=attributes.flag("git.keepgitdir"),
        submodules=not attributes.flag("git.skipsubmodules"),
        auth_header_secret=attributes.text("git.authheadersecret"),
        auth_token_secret=attributes.text("git.authtokensecret"),
        ssh_socket=attributes.text("git.mountsshsock"),
        known_hosts=attributes.text("git.knownsshhosts"),
    )


def _http(scheme: str) -> Callable[[str, _Attributes], HttpOrigin]:
    def read(rest: str, attributes: _Attributes) -> HttpOrigin:
        _check_url(f"{scheme}://{rest}")
        prefix = "http.header."
        headers = {
            name.removeprefix(prefix).lower(): value
            for name, value in attributes.values.items()
            if name.startswith(prefix)
        }
        return HttpOrigin(
            url=f"{scheme}://{rest}",
            checksum=attributes.digest("http.checksum"),
            filename=attributes.text("http.filename"),
            mode=attributes.number("http.perm", most=0o7777),
            uid=attributes.number("http.uid", most=LARGEST_ID),
            gid=attributes.number("http.gid", most=LARGEST_ID),
            auth_header_secret=attributes.text("http.authheadersecret"),
            headers=tuple(sorted((name, value) for name, value in headers.items() if name in HEADERS_ALLOWED)),
        )

    return read


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fine = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # brackets that do not match, a port that is none
        fine = False
    if not fine:
        raise InvalidDefinition(
            f"{giturl.redacted(url)[:200]!r} is not an http URL", hint="a URL is http(s)://host[:port]/path"
        )


def _local(rest: str, attributes: _Attributes) -> LocalOrigin:
    session = attributes.text("local.session")
    prefix, colon, identifier = session.partition(":")
    differ = attributes.text("local.differ") or "metadata"
    if differ not in ("metadata", "none"):
        raise InvalidDefinition(f"attribute local.differ is {differ[:50]!r}, not metadata or none")
    return LocalOrigin(
        name=f"{prefix}-{rest}" if colon else rest,
        session=identifier if colon else session,
        unique=attributes.text("local.unique"),
        include_patterns=attributes.list("local.includepattern"),
        exclude_patterns=attributes.list("local.excludepatterns"),
        follow_paths=attributes.list("local.followpaths"),
        shared_key_hint=attributes.text("local.sharedkeyhint"),
        differ=differ,
        metadata_only=attributes.flag("local.metadatatransfer"),
        metadata_exceptions=attributes.list("local.metadatatransferexclude"),
    )


_SCHEMES: Mapping[str, Callable[[str, _Attributes], Origin]] = {
    "docker-image": _image,
    "oci-layout": _layout,
    "git": _git,
    "http": _http("http"),
    "https": _http("https"),
    "local": _local,
}
