"""Where a registry is reached and how: mirrors first, plain HTTP only where that is allowed, TLS per host.

Decisions only, on configuration values as BuildKit names them (`[registry."docker.io"] mirrors, http, insecure,
ca, keypair`). Nothing here opens a connection or a file.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import field
from types import MappingProxyType
from urllib.parse import quote

from buildengine import USER_AGENT
from buildengine.errors import ConfigError
from buildengine.reference import DOCKER_HUB
from buildengine.values import dataclass

_DOCKER_HUB_API = "registry-1.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """Files of a client certificate and its key."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How far a host's certificate is believed. `ca` are further PEM files beside the system's."""

    ca: tuple[str, ...] = ()
    key_pairs: tuple[KeyPair, ...] = ()
    verify: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What the configuration says of one registry. `plain_http` None means: on loopback only.

    A mirror is `host[:port][/path]`. `insecure` takes any certificate.
    """

    mirrors: tuple[str, ...] = ()
    plain_http: bool | None = None
    insecure: bool = False
    ca: tuple[str, ...] = ()
    key_pairs: tuple[KeyPair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The usual three: `http` and `https` are proxy URLs, `bypass` what NO_PROXY lists."""

    http: str = ""
    https: str = ""
    bypass: tuple[str, ...] = ()

    def choose(self, scheme: str, host: str) -> str:
        """The proxy for a host (with port); "" for none. Loopback is never proxied, as in Go's net/http."""
        name = _without_port(host)
        listed = (entry.strip().lstrip("*.").lower() for entry in self.bypass)
        if is_loopback(host) or "*" in self.bypass:
            return ""
        if any(entry and (name == entry or name.endswith("." + entry) or host == entry) for entry in listed):
            return ""
        return self.https if scheme == "https" else self.http


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Everything that is configured for registries. `retry_delays` are seconds before each further attempt."""

    hosts: Mapping[str, HostConfig] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    proxies: Proxies = Proxies()
    user_agent: str = USER_AGENT
    max_downloads: int = 4
    retry_delays: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)

    def host(self, name: str) -> HostConfig:
        return self.hosts.get(name) or HostConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place to ask. `host` (with port) keys credentials and TLS; `base` is the URL up to `/v2[/prefix]`.

    A mirror is told whom it stands in for (`namespace`): it may do that for several, as containerd's may.
    """

    host: str
    base: str
    namespace: str = ""

    @property
    def is_mirror(self) -> bool:
        return bool(self.namespace)

    @property
    def is_plain(self) -> bool:
        return self.base.startswith("http://")

    @property
    def credential_key(self) -> str:
        return DOCKER_HUB if self.host == _DOCKER_HUB_API else self.host

    def url(self, path: str) -> str:
        return f"{self.base}/{path}" + (f"?ns={quote(self.namespace, safe='')}" if self.namespace else "")


def endpoints(domain: str, config: RegistryConfig) -> tuple[Endpoint, ...]:
    """Where repositories of `domain` can be asked for, in order; the registry itself is last."""
    mirrors = tuple(_endpoint(mirror, config, mirrored=domain) for mirror in config.host(domain).mirrors)
    own = domain if domain != DOCKER_HUB else _DOCKER_HUB_API
    return (*mirrors, _endpoint(own, config, configured_as=domain))


def tls(host: str, config: RegistryConfig, insecure: Collection[str] = ()) -> Tls:
    """TLS settings of `host` (with port); those `insecure` may have any certificate, whatever is configured."""
    found = config.host(DOCKER_HUB if host == _DOCKER_HUB_API else host)
    return Tls(ca=found.ca, key_pairs=found.key_pairs, verify=not (found.insecure or host in insecure))


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine by its very name."""
    name = _without_port(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    """`[::1]:5000` -> `::1`, `example.org:5000` -> `example.org`."""
    has_port = host.count(":") == 1 or "]:" in host
    return (host.rpartition(":")[0] if has_port else host).strip("[]")


def _endpoint(
    address: str, config: RegistryConfig, *, mirrored: str = "", configured_as: str | None = None
) -> Endpoint:
    scheme, separator, rest = address.rpartition("://")
    host, _, prefix = rest.rstrip("/").partition("/")
    if not host or (separator and scheme not in ("http", "https")):
        raise ConfigError(f"invalid registry mirror {address!r}", hint="a mirror is host[:port][/path]")
    plain = config.host(configured_as or host).plain_http
    if plain is None:
        plain = scheme == "http" or (not scheme and is_loopback(host))
    base = f"{'http' if plain else 'https'}://{host}/v2"
    return Endpoint(host=host, base=f"{base}/{prefix}" if prefix else base, namespace=mirrored)
