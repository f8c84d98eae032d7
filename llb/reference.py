"""Image references, spelled out: `busybox` is `docker.io/library/busybox:latest`.

An image source's identifier holds the full spelling, so that one image has one operation digest. The grammar is
that of github.com/distribution/reference (reference.go, normalize.go).
"""

from __future__ import annotations

import re

from buildengine.digest import Digest
from buildengine.errors import UserError

_COMPONENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>{_DOMAIN}/{_PATH}(?:/{_PATH})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>[^@]+))?", re.ASCII
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LONGEST_NAME = 255


def normalize(reference: str) -> str:
    """The full spelling of an image reference, with a tag or a digest. Raises UserError.

    >>> normalize("busybox")
    'docker.io/library/busybox:latest'
    >>> normalize("ghcr.io/me/app:v1")
    'ghcr.io/me/app:v1'
    """
    if _IDENTIFIER.fullmatch(reference):
        raise _invalid(reference, "64 hex digits name a digest, write name@sha256:...")
    match = _REFERENCE.fullmatch(_with_domain(reference))
    if match is None:
        hint = "repository names are lower case" if reference != reference.lower() else "a reference is name[:tag]"
        raise _invalid(reference, hint)
    if len(match["name"]) > _LONGEST_NAME:
        raise _invalid(reference, f"a name has at most {_LONGEST_NAME} characters")
    if match["digest"] is not None:
        Digest.parse(match["digest"])
        return match[0]
    return match[0] if match["tag"] else match[0] + ":latest"


def _with_domain(reference: str) -> str:
    """The first component is a registry only when it looks like one; Docker Hub is the registry otherwise."""
    first, slash, rest = reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if named else ("docker.io", reference)
    if domain == "index.docker.io":  # the old name of Docker Hub
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = "library/" + path
    return f"{domain}/{path}"


def _invalid(reference: str, hint: str) -> UserError:
    return UserError(f"invalid image reference {reference[:300]!r}", hint=hint)
