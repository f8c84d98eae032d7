"""The images that the Dockerfiles of this directory start from: tiny ones, in a registry that mirrors all of theirs.

Only configs matter: nothing is pulled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.fakes.own_registry import own_registry
from tests.fakes.registry_client import OCI_INDEX, RegistryClient, described, digest_of, manifest

MIRRORED = ("docker.io", "gcr.io", "mcr.microsoft.com", "mcr.example.com")
_PLATFORMS = (("amd64", ""), ("arm64", ""), ("arm", "v7"))
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PLAIN: Mapping[str, Any] = {"Env": [_PATH], "Cmd": ["sh"]}
_IMAGES: Mapping[str, Mapping[str, Any]] = {
    "library/alpine:3.22": _PLAIN,
    "library/busybox:latest": {"Cmd": ["sh"]},
    "library/b:1": _PLAIN,
    "library/composer:2": {"Env": [_PATH, "COMPOSER_HOME=/tmp"], "WorkingDir": "/app", "Entrypoint": ["/entry.sh"]},
    "library/debian:bookworm-slim": {"Env": [_PATH], "Cmd": ["bash"]},
    "library/eclipse-temurin:21-jdk": {"Env": ["JAVA_HOME=/opt/java", f"{_PATH}:/opt/java/bin"]},
    "library/eclipse-temurin:21-jre": {"Env": ["JAVA_HOME=/opt/jre"], "Entrypoint": ["/__cacert_entrypoint.sh"]},
    "library/elixir:1.19": _PLAIN,
    "library/gcc:15": _PLAIN,
    "library/golang:1.25": {"Env": [f"PATH=/go/bin:{_PATH[5:]}", "GOPATH=/go"], "WorkingDir": "/go"},
    "library/golang:1.25-alpine3.22": {"Env": [f"PATH=/go/bin:{_PATH[5:]}", "GOPATH=/go"], "WorkingDir": "/go"},
    "library/nginx:1.29-alpine": {"Env": [_PATH], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
    "library/node:22-slim": {"Env": [_PATH, "NODE_VERSION=22.1.0"], "Entrypoint": ["docker-entrypoint.sh"]},
    "library/onbuild:latest": {
        "Env": [_PATH, "FROM_BASE=1"],
        "WorkingDir": "/srv",
        "OnBuild": ["COPY . /srv", "RUN echo $FROM_BASE", "ARG LATE=x", "COPY --from=alpine:3.22 /etc /e"],
    },
    "library/php:8.4-apache": {"Env": [_PATH, "PHPIZE_DEPS=a b"], "WorkingDir": "/var/www/html"},
    "library/php:8.4-fpm-alpine": {"Env": [_PATH, "PHPIZE_DEPS=a b"], "WorkingDir": "/var/www/html"},
    "library/python:3.13-slim": {"Env": [_PATH, "LANG=C.UTF-8"], "Cmd": ["python3"]},
    "library/ruby:3.4.7-slim": {"Env": [_PATH, "GEM_HOME=/usr/local/bundle"], "Cmd": ["irb"]},
    "library/rust:1.90": {"Env": [f"PATH=/usr/local/cargo/bin:{_PATH[5:]}", "CARGO_HOME=/usr/local/cargo"]},
    "library/trigger-base:2": {
        "Env": [_PATH],
        "User": "app",
        "OnBuild": [
            "ADD --chown=1:2 --chmod=600 a b /c/",
            "RUN --mount=type=cache,target=/k --network=none make",
            "WORKDIR /late",
            "COPY <<EOF /inline\nfrom $PATH\nEOF",
        ],
    },
    "library/with-everything:1": {
        "Env": [_PATH, "INHERITED=in base"],
        "User": "1000:1000",
        "WorkingDir": "/home/app",
        "Entrypoint": ["/entry"],
        "Cmd": ["serve"],
        "Labels": {"mine": "no", "base": "yes"},
        "ExposedPorts": {"1/udp": {}},
        "Volumes": {"/v": {}},
        "StopSignal": "SIGINT",
        "Shell": ["/bin/bash", "-c"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
    },
    "tonistiigi/xx:1.6": {"Env": [_PATH]},
    "distroless/static:nonroot": {"Env": [_PATH, "SSL_CERT_FILE=/c"], "User": "65532", "WorkingDir": "/home/nonroot"},
    "dotnet/sdk:9.0": {"Env": [_PATH, "DOTNET_VERSION=9"]},
    "dotnet/aspnet:9.0": {"Env": [_PATH, "ASPNETCORE_HTTP_PORTS=8080"]},
    "windows-like:1": {"Env": ["PATH=/odd"], "Shell": ["/pwsh", "-Command"], "Cmd": ["/pwsh"]},
}


class Mirror(NamedTuple):
    """`configuration` is that of a daemon that has all images from here; digests are by name, as in _IMAGES."""

    configuration: str
    digests: Mapping[str, str]


@contextmanager
def mirror(work: Path) -> Iterator[Mirror]:
    with own_registry(work / "registry") as registry:
        client = RegistryClient(registry.address)
        digests = {name: _push(client, name, config) for name, config in _IMAGES.items()}
        mirrors = [f'[registry."{host}"]\n  mirrors = ["{registry.address}"]' for host in MIRRORED]
        configuration = "\n".join([*mirrors, f'[registry."{registry.address}"]\n  http = true', ""])
        yield Mirror(configuration, digests)


def _push(client: RegistryClient, name: str, config: Mapping[str, Any]) -> str:
    """The digest of its index, an image for each platform."""
    repository, _, tag = name.partition(":")
    entries = []
    for architecture, variant in _PLATFORMS:
        platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        document = {
            **platform,
            "created": "2025-01-02T03:04:05Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{1:064x}"]},
            "history": [{"created": "2025-01-02T03:04:05Z", "created_by": f"made {name}", "comment": "by hand"}],
        }
        data = json.dumps(document).encode()
        client.push_blob(repository, data)
        client.push_blob(repository, b"layer")
        raw = manifest(data, b"layer")
        client.push_manifest(repository, f"{tag}-{architecture}", raw)
        entries.append(described(raw, "application/vnd.oci.image.manifest.v1+json", platform=platform))
    whole = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    assert client.push_manifest(repository, tag, whole, OCI_INDEX).status == 201
    return digest_of(whole)
