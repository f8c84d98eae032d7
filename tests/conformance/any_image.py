"""A registry that has every image there is, each with a config of its own: for Dockerfiles whose bases nobody has here.

What an image says follows from its name, so two daemons that ask for it see the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes.registry_client import OCI_INDEX, described, digest_of, manifest

_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PLATFORMS = ({"architecture": "amd64"}, {"architecture": "arm64"}, {"architecture": "arm", "variant": "v7"})
_REQUEST = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/?]+)")
_HOST = re.compile(rb"[\w.-]+\.[a-z]{2,}(?::\d+)?(?=/)")


@contextmanager
def every_image(dockerfiles: Iterable[bytes]) -> Iterator[str]:
    """The configuration of a daemon that has every image of the registries that the files name from here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        here = f"127.0.0.1:{server.server_port}"
        hosts = {"docker.io", *(host.decode() for data in dockerfiles for host in _HOST.findall(data))}
        mirrors = [f'[registry."{host}"]\n  mirrors = ["{here}"]' for host in sorted(hosts)]
        yield "\n".join([*mirrors, f'[registry."{here}"]\n  http = true', ""])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _config(name: str, platform: Mapping[str, str]) -> bytes:
    number = hashlib.sha256(name.encode()).digest()
    config: dict[str, Any] = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", f"NAME={name}"], "Cmd": ["sh"]}
    if number[0] % 2:
        config |= {"WorkingDir": "/srv/app", "Entrypoint": ["/entry"], "Labels": {"of": name}}
    if number[1] % 3 == 0:
        config |= {
            "User": "1000:1000",
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
        }
    if number[2] % 5 == 0:
        config |= {"Shell": ["/bin/bash", "-c"], "StopSignal": "SIGINT", "Healthcheck": {"Test": ["CMD", "true"]}}
    document = {
        **platform,
        "os": "linux",
        "created": "2025-01-02T03:04:05Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{1:064x}"]},
        "history": [{"created": "2025-01-02T03:04:05Z", "created_by": f"made {name}"}],
    }
    return json.dumps(document).encode()


def _content(name: str) -> tuple[bytes, Mapping[str, tuple[bytes, str]]]:
    """The index of an image, and everything by digest."""
    blobs, entries = {digest_of(b"layer"): (b"layer", "application/octet-stream")}, []
    for platform in _PLATFORMS:
        config = _config(name, platform)
        raw = manifest(config, b"layer")
        blobs[digest_of(config)] = (config, "application/octet-stream")
        blobs[digest_of(raw)] = (raw, _OCI_MANIFEST)
        entries.append(described(raw, _OCI_MANIFEST, platform={**platform, "os": "linux"}))
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    blobs[digest_of(index)] = (index, OCI_INDEX)
    return index, blobs


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        found = _REQUEST.match(self.path)
        data, kind, status = b"{}", "application/json", 200
        if found is not None:
            index, blobs = _content(found["name"])
            is_tag = found["kind"] == "manifests" and ":" not in found["reference"]
            data, kind = (index, OCI_INDEX) if is_tag else blobs.get(found["reference"], (b"", ""))
            status = 200 if kind else 404
        self.send_response(status)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", digest_of(data))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is told."""
