"""The distribution API as its clients speak it, request by request, for tests of a registry.

    client = RegistryClient("127.0.0.1:5000")
    client.push_blob("app", b"layer")
    assert client.ask("GET", "/v2/app/tags/list").json() == {"name": "app", "tags": []}

It follows no redirect, repeats nothing and checks nothing: the test does.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCTETS = "application/octet-stream"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def manifest(config: bytes, /, *layers: bytes, **more: Any) -> bytes:
    """An OCI image manifest; `more` are further fields of it, None takes one away."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, OCI_CONFIG),
        "layers": [described(layer, OCI_LAYER) for layer in layers],
        **more,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def index(*manifests: bytes, **more: Any) -> bytes:
    entries = [described(raw, OCI_MANIFEST) for raw in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}).encode()


@dataclass(frozen=True, kw_only=True)
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> set[str]:
        """The error codes of the body."""
        return {error["code"] for error in self.json()["errors"]}


class RegistryClient:
    """A new connection for each request."""

    def __init__(self, address: str, *, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._headers = dict(headers or {})

    def ask(self, method: str, target: str, body: bytes | Iterable[bytes] | None = None, **headers: str) -> Response:
        """`headers` by names with _ for -. A body that is no bytes is sent in chunks. `target` may be a whole URL."""
        parts = urlsplit(target)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, {**self._headers, **named})
            response = connection.getresponse()
            return Response(status=response.status, headers=response.headers, body=response.read())
        finally:
            connection.close()

    def begin(self, repository: str) -> str:
        """Where a new upload is."""
        response = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert response.status == 202, response
        return str(response.header("Location"))

    def push_blob(self, repository: str, data: bytes) -> str:
        """Its digest."""
        target = with_query(self.begin(repository), digest=digest_of(data))
        response = self.ask("PUT", target, data, Content_Type=OCTETS)
        assert response.status == 201, response
        return digest_of(data)

    def push_manifest(self, repository: str, reference: str, raw: bytes, media_type: str = OCI_MANIFEST) -> Response:
        return self.ask("PUT", f"/v2/{repository}/manifests/{reference}", raw, Content_Type=media_type)

    def push_image(self, repository: str, tag: str, *, config: bytes = b"{}", layers: Iterable[bytes] = (b"l",)) -> str:
        """A small image; the digest of its manifest."""
        layers = tuple(layers)
        for data in (config, *layers):
            self.push_blob(repository, data)
        raw = manifest(config, *layers)
        response = self.push_manifest(repository, tag, raw)
        assert response.status == 201, response
        return digest_of(raw)


def with_query(target: str, **query: str) -> str:
    joined = "&".join(f"{name}={value}" for name, value in query.items())
    return f"{target}{'&' if '?' in target else '?'}{joined}"
