"""What a request asks for: its path and query as one frozen value, everything in it checked.

The paths are those of the distribution-spec (spec.md, "Endpoints"), plus docker's `_catalog`. A repository's name, a
tag, a digest and an upload's id match their grammar here or are refused here; behind this module they are safe to
use. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, unquote

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.values import dataclass
from worker.registry.server.answers import Code, Refusal

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_MAX_NAME = 255
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_UPLOAD = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COUNT = re.compile(r"[0-9]{1,9}")
_MAX_FIELDS = 200

MOST = 10_000
"""Names in one answer. Whoever asks for more gets a link to the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """At most `most` names, from behind `after` on. `is_limited`: the client has asked for that many."""

    most: int = MOST
    after: str = ""
    is_limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """`/v2/`: is this a registry?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    page: Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    name: str
    page: Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """By `tag` or by `digest`. `tags` are those that a push by digest brings along (`?tag=`)."""

    name: str
    tag: str = ""
    digest: Digest | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    name: str
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """Where an upload begins, or ends at once: with `digest`, or by mounting a blob that is here already."""

    name: str
    digest: Digest | None = None
    mount: Digest | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload. `digest` is what its client says the whole is, when it ends it."""

    name: str
    id: str
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrers:
    name: str
    digest: Digest
    artifact_type: str = ""
    after: str = ""


Route = Base | Catalog | Tags | Manifest | Blob | Uploads | Upload | Referrers
Query = Mapping[str, Sequence[str]]


def parse(target: str) -> Route:
    """What the target of a request (`/v2/app/tags/list?n=3`) means. Raises Refusal."""
    path, _, text = target.partition("?")
    path = unquote(path)
    if path in ("/v2", "/v2/"):
        return Base()
    if not path.startswith("/v2/"):
        raise Refusal(Code.UNSUPPORTED, "the API of this registry begins with /v2/", status=404)
    query = _query(text)
    rest = path.removeprefix("/v2/")
    if rest == "_catalog":
        return Catalog(page=_page(query))
    return _in_repository(rest, query)


def _in_repository(rest: str, query: Query) -> Route:
    if rest.endswith(("/blobs/uploads", "/blobs/uploads/")):
        return _uploads(_name(rest.rstrip("/").removesuffix("/blobs/uploads")), query)
    head, _, last = rest.rpartition("/")
    name, _, kind = head.rpartition("/")
    if kind == "tags" and last == "list":
        return Tags(name=_name(name), page=_page(query))
    if kind == "manifests":
        return _manifest(_name(name), last, query)
    if kind == "blobs":
        return Blob(name=_name(name), digest=_digest(last))
    if kind == "uploads" and name.endswith("/blobs"):
        return _upload(_name(name.removesuffix("/blobs")), last, query)
    if kind == "referrers":
        after = _digest(query["last"][0]) if "last" in query else ""
        artifact_type = _first(query, "artifactType")
        return Referrers(name=_name(name), digest=_digest(last), artifact_type=artifact_type, after=after)
    raise Refusal(Code.UNSUPPORTED, f"there is nothing at /v2/{rest[:300]}", status=404)


def _manifest(name: str, reference: str, query: Query) -> Manifest:
    if ":" in reference:
        tags = tuple(dict.fromkeys(_tag(tag) for tag in query.get("tag", ())))
        return Manifest(name=name, digest=_digest(reference), tags=tags)
    return Manifest(name=name, tag=_tag(reference))


def _uploads(name: str, query: Query) -> Uploads:
    algorithm = _first(query, "digest-algorithm")
    if algorithm not in ("", "sha256"):
        raise _unsupported_algorithm(algorithm)
    mount = _digest(query["mount"][0]) if "mount" in query else None
    source = _name(query["from"][0]) if "from" in query and mount is not None else None
    digest = _digest(query["digest"][0]) if "digest" in query and mount is None else None
    return Uploads(name=name, digest=digest, mount=mount, source=source)


def _upload(name: str, id: str, query: Query) -> Upload:
    if not _UPLOAD.fullmatch(id):
        raise Refusal(Code.BLOB_UPLOAD_UNKNOWN, f"there is no upload {id[:100]!r}")
    return Upload(name=name, id=id, digest=_digest(query["digest"][0]) if "digest" in query else None)


def _query(text: str) -> Query:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Refusal(Code.UNSUPPORTED, f"the query has more than {_MAX_FIELDS} fields", status=414) from None


def _first(query: Query, name: str) -> str:
    return query[name][0] if name in query else ""


def _page(query: Query) -> Page:
    after = _first(query, "last")
    if "n" not in query:
        return Page(after=after)
    count = query["n"][0]
    if not _COUNT.fullmatch(count):
        raise Refusal(Code.UNSUPPORTED, f"n is a number of entries, not {count[:50]!r}", status=400)
    return Page(most=min(int(count), MOST), after=after, is_limited=True)


def _name(text: str) -> str:
    if len(text) > _MAX_NAME or not _NAME.fullmatch(text):
        message = f"a repository's name is lower case, at most {_MAX_NAME} characters, parts joined by / . _ or -"
        raise Refusal(Code.NAME_INVALID, message, detail={"name": text[:300]})
    return text


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        message = "a tag is letters, digits, '.', '_' and '-', at most 128, and does not begin with '.' or '-'"
        raise Refusal(Code.MANIFEST_INVALID, message, detail={"tag": text[:300]})
    return text


def _digest(text: str) -> Digest:
    try:
        digest = Digest.parse(text)
    except UserError:
        algorithm, colon, encoded = text.partition(":")
        if colon and algorithm != "sha256" and re.fullmatch(r"[a-z0-9+._-]{1,40}", algorithm) and encoded:
            raise _unsupported_algorithm(algorithm) from None
        message = "a digest is sha256: and 64 lower-case hex digits"
        raise Refusal(Code.DIGEST_INVALID, message, detail={"digest": text[:200]}) from None
    if digest.algorithm != "sha256":
        raise _unsupported_algorithm(digest.algorithm)
    return digest


def _unsupported_algorithm(algorithm: str) -> Refusal:
    message = f"this registry knows sha256 digests only, not {algorithm[:40]}"
    return Refusal(Code.DIGEST_INVALID, message, detail={"algorithm": algorithm[:40]})
