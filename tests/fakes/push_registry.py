"""A registry on loopback that takes pushes, in memory and strict: what a body, a range or a manifest promises is held
against it. `rules` are asked first, as in `FakeRegistry`, so a test states only how its registry is odd.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import trio

from buildengine.digest import Digest
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.registry_server import FakeRegistry, Image, Logins
from worker.oci.types import Descriptor, Index, parse_manifest_or_index
from worker.registry.hosts import RegistryConfig
from worker.registry.pusher import Pusher, open_pusher

_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/(\d*)")
_MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")


@dataclass
class PushRegistry(FakeRegistry):
    """`held` are the blobs by repository, `sessions` the uploads under way with what they have received.

    `location` is what an upload's URL begins with: nothing, or another host. `least` is the shortest piece it takes.
    """

    held: dict[tuple[str, str], bytes] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    location: str = ""
    least: int = 0
    _states: dict[str, int] = field(default_factory=dict)

    def lines(self, *methods: str) -> list[str]:
        """The requests so far, as `PUT app/manifests/1`, uploads without their numbers."""
        return [
            f"{r.method} {re.sub(r'uploads/[0-9]+', 'uploads/N', r.path.removeprefix('/v2/'))}"
            for r in self.server.requests
            if not methods or r.method in methods
        ]

    def _content(self, request: Request) -> Reply:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        if match := _UPLOAD.fullmatch(request.path):
            return self._upload(request, match[1], match[2], query)
        if match := _BLOB.fullmatch(request.path):
            data = self.held.get((match[1], match[2]))
            return _error(404, "BLOB_UNKNOWN") if data is None else Reply(body=data)
        if (match := _MANIFEST.fullmatch(request.path)) and request.method == "PUT":
            return self._take_manifest(request, match[1], match[2])
        return super()._content(request)

    def _upload(self, request: Request, repository: str, number: str, query: dict[str, str]) -> Reply:
        if request.method == "POST":
            source = (query.get("from", ""), query.get("mount", ""))
            if source in self.held:
                self.held[repository, source[1]] = self.held[source]
                return Reply(status=201)
            number = str(len(self._states) + 1)
            self.sessions[number] = bytearray()
            return self._session(repository, number, 202)
        if number not in self.sessions or query.get("state") != str(self._states[number]):
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "DELETE":
            del self.sessions[number]
            return Reply(status=204)
        if request.method == "GET":
            return self._session(repository, number, 204)
        data = self.sessions[number]
        expected = f"{len(data)}-{len(data) + len(request.body) - 1}"
        if request.method == "PATCH" and request.headers.get("content-range") != expected:
            return _error(416, "BLOB_UPLOAD_INVALID")
        data += request.body
        return (
            self._session(repository, number, 202)
            if request.method == "PATCH"
            else self._end(repository, number, query["digest"])
        )

    def _session(self, repository: str, number: str, status: int) -> Reply:
        self._states[number] = self._states.get(number, 0) + 1
        url = f"{self.location}/v2/{repository}/blobs/uploads/{number}?state={self._states[number]}"
        headers = {"location": url, "range": f"0-{max(len(self.sessions[number]) - 1, 0)}"}
        if self.least:
            headers["oci-chunk-min-length"] = str(self.least)
        return Reply(status=status, headers=headers)

    def _end(self, repository: str, number: str, digest: str) -> Reply:
        data = bytes(self.sessions.pop(number))
        if Digest.sha256(data) != digest:
            return _error(400, "DIGEST_INVALID")
        self.held[repository, digest] = data
        return Reply(status=201, headers={"docker-content-digest": digest})

    def _take_manifest(self, request: Request, repository: str, name: str) -> Reply:
        document = parse_manifest_or_index(request.body, media_type=request.headers["content-type"])
        if isinstance(document, Index):
            missing = [d for d in document.manifests if (repository, str(d.digest)) not in self.manifests]
        else:
            parts = [d for d in (document.config, *document.layers) if not d.urls]
            missing = [d for d in parts if (repository, d.digest) not in self.held]
        if missing:
            return _error(400, "MANIFEST_BLOB_UNKNOWN")
        digest = self.put_manifest(repository, name, request.body, document.media_type)
        return Reply(status=201, headers={"docker-content-digest": digest})


def _error(status: int, code: str) -> Reply:
    return Reply(status=status, body=f'{{"errors":[{{"code":"{code}","message":"{code.lower()}"}}]}}'.encode())


@asynccontextmanager
async def push_registry(**settings: Any) -> AsyncIterator[PushRegistry]:
    registry = PushRegistry(**settings)
    async with serve(registry.handle) as server:
        registry.server = server
        yield registry


class MemoryContent:
    """`worker.registry.pusher.Content` of a few bytes. `opened` are the blobs whose bytes were asked for."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = {Digest.sha256(blob): blob for blob in blobs}
        self.known: dict[Digest, Sequence[str]] = {}
        self.opened: list[Digest] = []
        self.places: list[tuple[Digest, str]] = []

    @classmethod
    def of(cls, *images: Image) -> MemoryContent:
        return cls(*(blob for image in images for blob in (image.manifest, image.config, *image.layers)))

    async def document(self, descriptor: Descriptor) -> bytes:
        return self.blobs[descriptor.digest]

    def origins(self, digest: Digest) -> Sequence[str]:
        return self.known.get(digest, ())

    @asynccontextmanager
    async def open(self, descriptor: Descriptor) -> AsyncIterator[MemoryBlob]:
        self.opened.append(descriptor.digest)
        yield MemoryBlob(self.blobs[descriptor.digest])

    async def pushed(self, digest: Digest, repository: str) -> None:
        self.places.append((digest, repository))


class MemoryBlob:
    """`worker.registry.pusher.BlobReader`."""

    def __init__(self, data: bytes, step: int = 100_000) -> None:
        self._data = data
        self._step = step

    async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes]:
        while start < end:
            piece = self._data[start : min(start + self._step, end)]
            start += len(piece)
            yield piece
            await trio.lowlevel.checkpoint()


def target(image: Image) -> Descriptor:
    return Descriptor(media_type=image.media_type, digest=Digest.sha256(image.manifest), size=len(image.manifest))


@asynccontextmanager
async def pusher(
    logins: Logins | None = None, *, insecure: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Pusher]:
    config = RegistryConfig(retry_delays=(0.0,) * 5, **settings)
    async with open_pusher(config, logins or Logins(), insecure=insecure) as made:
        yield made
