"""The configuration of registries (`buildengine.config`), in the terms of this package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from buildengine.config import RegistryConfig
from worker.registry import hosts

CERTIFICATES = Path("/etc/docker/certs.d")


def registry_config(
    registries: Mapping[str, RegistryConfig], environment: Mapping[str, str], *, certificates: Path = CERTIFICATES
) -> hosts.RegistryConfig:
    """Hosts, mirrors, certificates and proxies. `certificates` has a directory for each host, as docker's."""
    names = {*registries, *_directories(certificates)}
    return hosts.RegistryConfig(
        hosts={name: _host(registries.get(name) or RegistryConfig(), certificates / name) for name in names},
        proxies=_proxies(environment),
    )


def _host(registry: RegistryConfig, directory: Path) -> hosts.HostConfig:
    ca, pairs = list(registry.ca), [(pair.cert, pair.key) for pair in registry.keypairs]
    for place in (*registry.tlsconfigdir, directory):
        more_ca, more_pairs = _tls_files(place)
        ca += more_ca
        pairs += more_pairs
    return hosts.HostConfig(
        mirrors=registry.mirrors,
        plain_http=registry.http,
        insecure=registry.insecure,
        ca=tuple(map(str, ca)),
        key_pairs=tuple(hosts.KeyPair(certificate=str(cert), key=str(key)) for cert, key in pairs),
    )


def _tls_files(directory: Path) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """The authorities (`*.crt`) and client certificates (`x.cert` with `x.key`) of a directory that may be missing.

    Docker's convention (docs "certificates"), which BuildKit's `tlsconfigdir` follows (util/resolver/resolver.go).
    """
    names = _listed(directory)
    authorities = [directory / name for name in names if name.endswith(".crt")]
    pairs = [(directory / name, (directory / name).with_suffix(".key")) for name in names if name.endswith(".cert")]
    return authorities, pairs


def _directories(parent: Path) -> list[str]:
    return [name for name in _listed(parent) if (parent / name).is_dir()]


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:  # not there, or not ours to read, as BuildKit takes it
        return []


def _proxies(environment: Mapping[str, str]) -> hosts.Proxies:
    def variable(name: str) -> str:
        return environment.get(name.lower()) or environment.get(name) or ""

    bypass = tuple(entry for entry in variable("NO_PROXY").split(",") if entry.strip())
    return hosts.Proxies(http=variable("HTTP_PROXY"), https=variable("HTTPS_PROXY"), bypass=bypass)
