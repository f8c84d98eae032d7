"""Image references: `[registry/]repository[:tag][@digest]`, parsed and spelled out as docker does.

Facts: distribution/reference (grammar in reference.go, normalisation in normalize.go). `debian` is
`docker.io/library/debian:latest`; the first path component is a registry when it holds a dot, a colon or an
upper-case letter, or is `localhost`. A reference with tag and digest keeps both, and the digest decides.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Never

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.values import dataclass

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_MAX_NAME = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_HINT = "a reference looks like debian:12, ghcr.io/owner/app:1.0 or name@sha256:<64 hex digits>"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Reference:
    """A normalised reference. Made by `parse`; with neither tag nor digest it names a repository."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The repository with its registry: `docker.io/library/debian`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """As people write it: `debian:12`."""
        name = self.name
        if self.domain == DOCKER_HUB:
            name = self.path.removeprefix(_OFFICIAL) if self.path.count("/") == 1 else self.path
        return name + self._suffix()

    def with_digest(self, digest: Digest) -> Reference:
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The reference that `text` means, `latest` when it names neither tag nor digest. Raises UserError."""
    reference = parse_repository(text)
    return reference if reference.tag or reference.digest else replace(reference, tag=DEFAULT_TAG)


def parse_repository(text: str) -> Reference:
    """As `parse`, but without a default tag."""
    rest, at, digest_text = text.partition("@")
    digest = _digest(text, digest_text) if at else None
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        _invalid(text, f"{tag[:140]!r} is not a tag")
    domain, path = _split_domain(head + slash + last)
    if not _DOMAIN.fullmatch(domain):
        _invalid(text, f"{domain[:100]!r} is not a registry host")
    if path != path.lower():
        _invalid(text, f"repository name ({path[:100]}) must be lowercase")
    if not _PATH.fullmatch(path):
        _invalid(text, f"{path[:100]!r} is not a repository name")
    if _IDENTIFIER.fullmatch(rest):
        _invalid(text, "64 hex digits are an image id, not a name")
    if len(domain) + 1 + len(path) > _MAX_NAME:
        _invalid(text, f"the name is longer than {_MAX_NAME} characters")
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def _split_domain(name: str) -> tuple[str, str]:
    domain, slash, path = name.partition("/")
    is_domain = "." in domain or ":" in domain or domain == "localhost" or domain != domain.lower()
    if not slash or not is_domain:
        domain, path = DOCKER_HUB, name
    elif domain == "index.docker.io":
        domain = DOCKER_HUB
    if domain == DOCKER_HUB and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _digest(text: str, digest: str) -> Digest:
    if not digest.startswith("sha256:"):
        _invalid(text, f"{digest[:100]!r} is not a sha256 digest")
    try:
        return Digest.parse(digest)
    except UserError as error:
        _invalid(text, error.message)


def _invalid(text: str, problem: str) -> Never:
    raise UserError(f"invalid image reference {text[:300]!r}: {problem}", hint=_HINT)


def normalize(text: str) -> str:
    """The full spelling of an image reference, with a tag or a digest. Raises UserError.

    >>> normalize("busybox")
    'docker.io/library/busybox:latest'
    """
    return str(parse(text))
