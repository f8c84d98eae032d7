"""The files every step sees bind-mounted: /etc/hosts, /etc/resolv.conf (executor/oci/hosts.go, resolvconf.go)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llb.ops import Meta

_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def host_files(meta: Meta, *, network: str) -> Mapping[str, bytes]:
    """Contents by target. A step on the host's network resolves names as the host does."""
    hosts = _HOSTS + (f"127.0.0.1\t{meta.hostname}\n" if meta.hostname else "127.0.0.1\tbuildkitsandbox\n")
    hosts += "".join(f"{extra.ip}\t{extra.host}\n" for extra in meta.extra_hosts)
    return {"/etc/hosts": hosts.encode(), "/etc/resolv.conf": _resolv_conf(network)}


def _resolv_conf(network: str) -> bytes:
    if network == "none":
        return b""
    try:
        return Path("/etc/resolv.conf").read_bytes()[: 64 << 10]
    except OSError:
        return b""
