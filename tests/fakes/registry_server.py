"""A registry on loopback: enough of the distribution-spec to pull from, and able to do everything wrong.

`rules` are asked first, in order: the first that answers wins, so a test states only how its registry is odd.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from buildengine.digest import Digest
from tests.fakes.http_server import Reply, Request, Server, serve
from worker.oci import jsonbytes, types
from worker.registry.hosts import RegistryConfig
from worker.registry.puller import Registry, open_registry
from worker.session import Credential, SecretBytes, Tokens

Rule = Callable[[Request], Reply | None]


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.sha256(data)), "size": len(data), **more}


@dataclass
class Image:
    """An image made of arbitrary layer bytes; diff IDs are what `diff_ids` says, or made up."""

    layers: Sequence[bytes] = (b"layer one", b"layer two")
    architecture: str = "amd64"
    oci: bool = True
    config: bytes = b""
    manifest: bytes = b""

    def __post_init__(self) -> None:
        if not self.config:
            diff_ids = [str(Digest.sha256(b"diff" + layer)) for layer in self.layers]
            rootfs = {"type": "layers", "diff_ids": diff_ids}
            document = {"architecture": self.architecture, "os": "linux", "config": {}, "rootfs": rootfs}
            self.config = jsonbytes.compact(document)
        if not self.manifest:
            kinds = (types.OCI_MANIFEST, types.OCI_CONFIG, types.OCI_LAYER_GZIP)
            if not self.oci:
                kinds = (types.DOCKER_MANIFEST, types.DOCKER_CONFIG, types.DOCKER_LAYER_GZIP)
            self.manifest = jsonbytes.indented(
                {
                    "schemaVersion": 2,
                    "mediaType": kinds[0],
                    "config": descriptor(self.config, kinds[1]),
                    "layers": [descriptor(layer, kinds[2]) for layer in self.layers],
                }
            )

    @property
    def media_type(self) -> str:
        return types.OCI_MANIFEST if self.oci else types.DOCKER_MANIFEST

    def entry(self, **platform: str) -> dict[str, Any]:
        """The descriptor of this image in an index."""
        platform = platform or {"architecture": self.architecture, "os": "linux"}
        return descriptor(self.manifest, self.media_type, platform=platform)


def index(*entries: dict[str, Any], media_type: str = types.OCI_INDEX) -> bytes:
    return jsonbytes.indented({"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)})


@dataclass
class FakeRegistry:
    """What it holds. `bearer` and `basic` are the credentials it insists on (`user:password`)."""

    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    basic: str = ""
    bearer: str = ""
    realm: str = ""
    tokens_given: int = 0
    server: Server = field(default_factory=lambda: Server(lambda request: Reply(status=500)))

    @property
    def host(self) -> str:
        return self.server.host

    def put(self, repository: str, tag: str, image: Image) -> Digest:
        for data in (image.config, *image.layers):
            self.blobs[str(Digest.sha256(data))] = data
        return self.put_manifest(repository, tag, image.manifest, image.media_type)

    def put_manifest(self, repository: str, tag: str, raw: bytes, media_type: str = types.OCI_INDEX) -> Digest:
        digest = Digest.sha256(raw)
        self.manifests[repository, tag] = self.manifests[repository, str(digest)] = (raw, media_type)
        return digest

    def handle(self, request: Request) -> Reply:
        for rule in self.rules:
            reply = rule(request)
            if reply is not None:
                return reply
        if request.path == "/token":
            return self._token(request)
        denied = self._denied(request)
        return denied or self._content(request)

    def _denied(self, request: Request) -> Reply | None:
        sent = request.headers.get("authorization", "")
        if self.basic and sent != "Basic " + base64.b64encode(self.basic.encode()).decode():
            return Reply(status=401, headers={"www-authenticate": 'Basic realm="here"'})
        if self.bearer and not sent.startswith("Bearer token-"):
            repository = request.path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
            realm = self.realm or f"{self.server.url}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:{repository}:pull"'
            return Reply(status=401, headers={"www-authenticate": challenge})
        return None

    def _token(self, request: Request) -> Reply:
        if self.bearer != "anonymous":
            expected = "Basic " + base64.b64encode(self.bearer.encode()).decode()
            if request.headers.get("authorization") != expected:
                return Reply(status=401, body=b'{"errors":[{"code":"UNAUTHORIZED","message":"bad credentials"}]}')
        self.tokens_given += 1
        return Reply(body=json.dumps({"token": f"token-{self.tokens_given}", "expires_in": 300}).encode())

    def _content(self, request: Request) -> Reply:
        if request.path == "/v2/":
            return Reply(body=b"{}")
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", request.path)
        if match is None:
            return Reply(status=404)
        repository, kind, name = match.groups()
        if kind == "manifests":
            found = self.manifests.get((repository, name))
            if found is None:
                return Reply(status=404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            digest = str(Digest.sha256(found[0]))
            return Reply(body=found[0], headers={"content-type": found[1], "docker-content-digest": digest})
        data = self.blobs.get(name)
        if data is None:
            return Reply(status=404, body=b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}')
        return ranged(request, data)


def ranged(request: Request, data: bytes) -> Reply:
    """`data`, or the part of it that a Range header asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Reply(body=data)
    start, stop = int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data))
    return Reply(status=206, body=data[start:stop], headers={"content-range": f"bytes {start}-{stop - 1}/{len(data)}"})


@asynccontextmanager
async def fake_registry(**settings: Any) -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry(**settings)
    async with serve(registry.handle) as server:
        registry.server = server
        yield registry


class MemorySink:
    """A `BlobSink` in memory."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Logins:
    """`Credentials` from a dictionary of `user:password`. `tokens` may be set: who fetches tokens himself."""

    tokens: Tokens | None = None

    def __init__(self, **logins: str) -> None:
        self.logins = logins

    async def get(self, host: str) -> Credential | None:
        login = self.logins.get(host)
        if login is None:
            return None
        user, _, password = login.partition(":")
        return Credential(username=user, password=SecretBytes(password.encode()))


@asynccontextmanager
async def client(logins: Logins | None = None, **settings: Any) -> AsyncIterator[Registry]:
    config = RegistryConfig(retry_delays=(0.0, 0.0, 0.0), **settings)
    async with open_registry(config, logins or Logins()) as registry:
        yield registry


async def fetch(fake: FakeRegistry, data: bytes, logins: Logins | None = None, *, size: int | None = None) -> bytes:
    """Fetch the blob of `data`'s digest; what the registry really sends is up to it."""
    sink = MemorySink()
    wanted = types.Descriptor(media_type="x", digest=Digest.sha256(data), size=len(data) if size is None else size)
    async with client(logins) as registry:
        await registry.fetch_blob(wanted, (f"{fake.host}/app",), sink)
    return sink.data
