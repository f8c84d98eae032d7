"""What the registry does: each route and method, on the store. A request in, an answer out, or a Refusal.

Facts: distribution-spec 1.1, spec.md. What it leaves open: deletion is allowed, and at once; a blob may be mounted
without a source from whichever repository has it; manifests are pushed by tag or digest, with `?tag=` too; a chunk
may have any size.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

from buildengine.digest import Digest
from buildengine.limits import DISK, offload
from cache.opened import Cache
from worker.registry.server import manifests, ranges, referrers, routes
from worker.registry.server.answers import (
    Answer,
    Code,
    FilePart,
    Headers,
    Refusal,
    json_answer,
    method_not_allowed,
)
from worker.registry.server.uploads import Upload, Uploads
from worker.registry.server.wire import Body, Request

_READING = frozenset({"GET", "HEAD"})
_FOR_EVER = ("Cache-Control", "max-age=31536000, immutable")

Action = Callable[[], Awaitable[Answer]]


class OnChange(Protocol):
    """Told when something is to be made durable; `frees`: and something may be collected."""

    def __call__(self, *, frees: bool) -> None: ...


class Endpoints:
    """The registry on `cache`: what a request asks for is done, `uploads` are those that have begun."""

    def __init__(self, cache: Cache, *, read_only: bool, on_change: OnChange) -> None:
        self._cache = cache
        self._served = cache.served
        self._read_only = read_only
        self._changed = on_change
        self.uploads = Uploads(cache)

    async def answer(self, request: Request, body: Body) -> Answer:
        route = routes.parse(request.target)
        actions = self._actions(route, request, body)
        if "GET" in actions and not isinstance(route, routes.Upload):
            actions = {**actions, "HEAD": actions["GET"]}
        if self._read_only:
            actions = {method: action for method, action in actions.items() if method in _READING}
        if request.method not in actions:
            why = "this registry is read-only" if self._read_only else f"{request.method} is not for this"
            raise method_not_allowed(actions, why)
        return await actions[request.method]()

    def _actions(self, route: routes.Route, request: Request, body: Body) -> Mapping[str, Action]:
        match route:
            case routes.Base():
                return {"GET": self._base}
            case routes.Catalog():
                return {"GET": partial(self._catalog, route)}
            case routes.Tags():
                return {"GET": partial(self._tags, route)}
            case routes.Referrers():
                return {"GET": partial(self._referrers, route)}
            case routes.Manifest():
                return {
                    "GET": partial(self._get_manifest, route, request),
                    "PUT": partial(self._put_manifest, route, request, body),
                    "DELETE": partial(self._delete_manifest, route),
                }
            case routes.Blob():
                return {"GET": partial(self._get_blob, route, request), "DELETE": partial(self._delete_blob, route)}
            case routes.Uploads():
                return {"POST": partial(self._begin, route, request, body)}
            case routes.Upload():
                return {
                    "GET": partial(self._status, route),
                    "PATCH": partial(self._chunk, route, request, body),
                    "PUT": partial(self._end, route, request, body),
                    "DELETE": partial(self._cancel, route),
                }

    # --- what there is ----------------------------------------------------------------------------------------------

    async def _base(self) -> Answer:
        return json_answer({})

    async def _catalog(self, route: routes.Catalog) -> Answer:
        page = route.page
        names = self._served.names(after=page.after, most=page.most + 1)
        return _listed({"repositories": None}, names, page, "/v2/_catalog")

    async def _tags(self, route: routes.Tags) -> Answer:
        self._must_exist(route.name)
        page = route.page
        tags = self._served.tags(route.name, after=page.after, most=page.most + 1)
        return _listed({"name": route.name, "tags": None}, tags, page, f"/v2/{route.name}/tags/list")

    async def _referrers(self, route: routes.Referrers) -> Answer:
        found = self._served.referrers(
            route.name, route.digest, artifact_type=route.artifact_type, after=route.after, most=referrers.MOST + 1
        )
        return referrers.listing(route, found)

    # --- manifests --------------------------------------------------------------------------------------------------

    async def _get_manifest(self, route: routes.Manifest, request: Request) -> Answer:
        digest = route.digest or self._served.tagged(route.name, route.tag)
        manifest = None if digest is None else self._served.manifest(route.name, digest)
        if manifest is None:
            self._must_exist(route.name)
            raise _unknown_manifest(route)
        headers = (("Content-Type", manifest.media_type), *_identity(manifest.digest))
        if _is_known(request, manifest.digest):
            return Answer(status=304, headers=headers)
        part = FilePart(path=self._cache.store.path(manifest.digest), offset=0, length=manifest.size)
        return Answer(status=200, headers=headers, body=part)

    async def _put_manifest(self, route: routes.Manifest, request: Request, body: Body) -> Answer:
        raw = await _bounded(body, manifests.LIMIT)
        incoming = manifests.read(raw, media_type=request.headers.get("content-type", ""), digest=route.digest)
        manifest, tags = incoming.manifest, (route.tag,) if route.tag else route.tags
        with self._cache.activity():
            await offload(self._cache.store.put, raw, limiter=DISK)
            lacking = await self._served.add_manifest(route.name, manifest, needs=incoming.needs, tags=tags)
        if lacking:
            raise manifests.missing(lacking)
        self._changed(frees=False)
        headers: Headers = (("Location", f"/v2/{route.name}/manifests/{manifest.digest}"), *_identity(manifest.digest))
        if manifest.subject is not None:
            headers += (("OCI-Subject", manifest.subject),)
        return Answer(status=201, headers=headers + tuple(("OCI-Tag", tag) for tag in route.tags))

    async def _delete_manifest(self, route: routes.Manifest) -> Answer:
        if route.digest is None:
            gone = await self._served.remove_tag(route.name, route.tag)
        else:
            gone = await self._served.remove_manifest(route.name, route.digest)
        if not gone:
            self._must_exist(route.name)
            raise _unknown_manifest(route)
        self._changed(frees=True)
        return Answer(status=202)

    # --- blobs ------------------------------------------------------------------------------------------------------

    async def _get_blob(self, route: routes.Blob, request: Request) -> Answer:
        size = self._served.blob(route.name, route.digest)
        if size is None:
            raise _unknown_blob(route)
        path = self._cache.store.path(route.digest)
        headers: Headers = (
            ("Content-Type", "application/octet-stream"),
            ("Accept-Ranges", "bytes"),
            _FOR_EVER,
            *_identity(route.digest),
        )
        if _is_known(request, route.digest):
            return Answer(status=304, headers=headers)
        wanted = request.headers.get("range", "") if request.method == "GET" else ""
        if request.headers.get("if-range", _etag(route.digest)) != _etag(route.digest):
            wanted = ""
        span = ranges.requested(wanted, size)
        if span is None:
            return Answer(status=200, headers=headers, body=FilePart(path=path, offset=0, length=size))
        headers += (("Content-Range", f"bytes {span.start}-{span.last}/{size}"),)
        return Answer(status=206, headers=headers, body=FilePart(path=path, offset=span.start, length=span.length))

    async def _delete_blob(self, route: routes.Blob) -> Answer:
        if not await self._served.remove_blob(route.name, route.digest):
            raise _unknown_blob(route)
        self._changed(frees=True)
        return Answer(status=202)

    # --- uploads ----------------------------------------------------------------------------------------------------

    async def _begin(self, route: routes.Uploads, request: Request, body: Body) -> Answer:
        if route.mount is not None and await self._mounted(route, route.mount):
            return _stored(route.name, route.mount)
        if route.digest is None:
            upload = self.uploads.begin(route.name)
            return Answer(status=202, headers=upload.headers)
        self._check_space(body)
        upload = self.uploads.begin(route.name)
        try:
            return await self._ended(upload, body, None, route.digest)
        except BaseException:
            self.uploads.forget(upload)  # nobody knows its name
            raise

    async def _mounted(self, route: routes.Uploads, digest: Digest) -> bool:
        source = route.source or self._served.holder(digest)
        return source is not None and await self._served.add_blob(route.name, digest, source=source)

    async def _status(self, route: routes.Upload) -> Answer:
        return Answer(status=204, headers=self.uploads.find(route.name, route.id).headers)

    async def _chunk(self, route: routes.Upload, request: Request, body: Body) -> Answer:
        upload, span = self._place(route, request, body)
        await self.uploads.append(upload, body, span)
        return Answer(status=202, headers=upload.headers)

    async def _end(self, route: routes.Upload, request: Request, body: Body) -> Answer:
        if route.digest is None:
            raise Refusal(Code.DIGEST_INVALID, "the upload ends with ?digest=, the digest of the whole")
        upload, span = self._place(route, request, body)
        return await self._ended(upload, body, span, route.digest)

    async def _cancel(self, route: routes.Upload) -> Answer:
        await self.uploads.cancel(self.uploads.find(route.name, route.id))
        return Answer(status=204)

    async def _ended(self, upload: Upload, body: Body, span: ranges.Span | None, digest: Digest) -> Answer:
        info = await self.uploads.finish(upload, body, span, digest)
        return _stored(upload.repository, info.digest)

    def _place(self, route: routes.Upload, request: Request, body: Body) -> tuple[Upload, ranges.Span | None]:
        upload = self.uploads.find(route.name, route.id)
        self._check_space(body)
        header = request.headers.get("content-range")
        return upload, None if header is None else ranges.chunk(header)

    def _check_space(self, body: Body) -> None:
        """Nobody is asked to send what there is no room for."""
        free = shutil.disk_usage(self._cache.root).free
        if body.length is not None and body.length > free:
            message = f"{body.length} bytes are more than the disk has room for"
            raise Refusal(Code.SIZE_INVALID, message, status=413, close=True)

    def _must_exist(self, name: str) -> None:
        if not self._served.exists(name):
            raise Refusal(Code.NAME_UNKNOWN, f"there is no repository {name}", detail={"name": name})


async def _bounded(body: Body, limit: int) -> bytes:
    """The whole body, when it has at most `limit` bytes."""
    if (body.length or 0) > limit:
        raise _too_large(limit)
    buffer = memoryview(bytearray(limit + 1 if body.length is None else body.length))
    count = await body.fill(buffer)
    if body.failure is not None:
        raise body.failure
    if count > limit:
        raise _too_large(limit)
    return bytes(buffer[:count])


def _too_large(limit: int) -> Refusal:
    return Refusal(Code.SIZE_INVALID, f"a manifest has at most {limit} bytes here", status=413)


def _listed(document: dict[str, Any], found: Sequence[str], page: routes.Page, path: str) -> Answer:
    """`found` has one more than the page when there are more. The entry that is None becomes the list."""
    shown = list(found[: page.most])
    headers: Headers = ()
    if shown and len(found) > len(shown):
        query = urlencode({"last": shown[-1], **({"n": page.most} if page.is_limited else {})})
        headers = (("Link", f'<{path}?{query}>; rel="next"'),)
    filled = {name: shown if value is None else value for name, value in document.items()}
    return json_answer(filled, headers=headers)


def _identity(digest: Digest) -> Headers:
    return (("Docker-Content-Digest", digest), ("ETag", _etag(digest)))


def _etag(digest: Digest) -> str:
    return f'"{digest}"'


def _is_known(request: Request, digest: Digest) -> bool:
    """Whether the client has this already. A digest is a strong validator (RFC 9110, 13.1.2)."""
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    return bool(known & {_etag(digest), str(digest), "*"})


def _stored(name: str, digest: Digest) -> Answer:
    headers = (("Location", f"/v2/{name}/blobs/{digest}"), ("Docker-Content-Digest", digest))
    return Answer(status=201, headers=headers)


def _unknown_manifest(route: routes.Manifest) -> Refusal:
    reference = route.tag or str(route.digest)
    return Refusal(Code.MANIFEST_UNKNOWN, f"{route.name} has no manifest {reference}", detail={"reference": reference})


def _unknown_blob(route: routes.Blob) -> Refusal:
    return Refusal(Code.BLOB_UNKNOWN, f"{route.name} has no blob {route.digest}", detail={"digest": route.digest})
