"""The contents of /etc/hosts and /etc/resolv.conf of a step: pure functions, for `ProcessSpec.files`.

They are mounted, never written into a layer. Facts: BuildKit executor/oci/hosts.go and resolvconf.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Literal

from worker.runtime.spec import DEFAULT_HOSTNAME

# What docker's libnetwork falls back to when a host has no server that a container could reach.
_PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")


def hosts(hostname: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """/etc/hosts with `extra` (name, address) lines at its end."""
    lines = [f"127.0.0.1\tlocalhost {hostname or DEFAULT_HOSTNAME}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for name, address in extra]
    return "".join(line + "\n" for line in lines).encode()


def resolv_conf(host: str, network: Literal["host", "none"]) -> bytes:
    """/etc/resolv.conf from the host's. Without the host's network its loopback servers answer nobody."""
    lines = [line for line in host.splitlines() if line.strip()]
    if network == "host" and any(_server(line) for line in lines):
        return "".join(line + "\n" for line in lines).encode()
    kept = [line for line in lines if not _is_loopback(_server(line))]
    if not any(_server(line) for line in kept):
        kept += [f"nameserver {address}" for address in _PUBLIC_SERVERS]
    return "".join(line + "\n" for line in kept).encode()


def _server(line: str) -> str:
    words = line.split()
    return words[1] if len(words) >= 2 and words[0] == "nameserver" else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
