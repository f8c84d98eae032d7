"""The configuration of registries, in the terms of `worker.registry`."""

from __future__ import annotations

from collections.abc import Mapping

from buildengine.config import Config
from worker.registry import hosts


def registry_config(config: Config) -> hosts.RegistryConfig:
    """Hosts, mirrors, certificates and proxies."""
    return hosts.RegistryConfig(
        hosts={
            name: hosts.HostConfig(
                mirrors=registry.mirrors,
                plain_http=registry.http,
                insecure=registry.insecure,
                ca=tuple(str(path) for path in registry.ca),
                key_pairs=tuple(
                    hosts.KeyPair(certificate=str(pair.cert), key=str(pair.key)) for pair in registry.keypairs
                ),
            )
            for name, registry in config.registries.items()
        },
        proxies=_proxies(config.environment),
    )


def _proxies(environment: Mapping[str, str]) -> hosts.Proxies:
    def variable(name: str) -> str:
        return environment.get(name.lower()) or environment.get(name) or ""

    bypass = tuple(entry for entry in variable("NO_PROXY").split(",") if entry.strip())
    return hosts.Proxies(http=variable("HTTP_PROXY"), https=variable("HTTPS_PROXY"), bypass=bypass)
