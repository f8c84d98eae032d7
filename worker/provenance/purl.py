"""Image references as package URLs: `pkg:docker/debian@12?platform=linux%2Famd64`. Pure.

Facts: the purl specification (https://github.com/package-url/purl-spec); BuildKit util/purl/image.go (RefToPURL).
"""

from __future__ import annotations

from urllib.parse import quote, quote_plus

from buildengine.platform import Platform
from buildengine.reference import parse

DOCKER, OCI = "docker", "oci"
_SEGMENT = "$&+=:@"  # what Go's url.PathEscape leaves besides letters, digits and -_.~


def image_purl(kind: str, reference: str, platform: Platform | None) -> str:
    """`kind` is DOCKER, or OCI for an image that came from no registry. Raises UserError.

    >>> image_purl(DOCKER, "registry.example:5000/team/app:1", None)
    'pkg:docker/registry.example%3A5000/team/app@1'
    """
    parsed = parse(reference)
    tag = f":{parsed.tag}" if parsed.tag else ""
    digest = f"@{parsed.digest}" if parsed.digest else ""
    name = parsed.familiar.removesuffix(digest).removesuffix(tag)
    qualifiers = {}
    if parsed.digest is not None:
        qualifiers["digest"] = str(parsed.digest)
    if platform is not None:
        qualifiers["platform"] = str(platform)
    version = f"@{quote(parsed.tag, safe=_SEGMENT)}" if parsed.tag else ""
    query = "&".join(f"{key}={quote(value, safe=_SEGMENT)}" for key, value in qualifiers.items())
    return f"pkg:{kind}/{'/'.join(map(quote_plus, name.split('/')))}{version}{'?' if query else ''}{query}"
