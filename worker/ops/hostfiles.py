"""The files that every step sees mounted and no layer holds: /etc/hosts and /etc/resolv.conf.

Facts: BuildKit's executor/oci/hosts.go and resolvconf.go; resolv.conf(5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path

from llb.ops import HostIP, Meta
from worker.context import Dns
from worker.runtime.spec import DEFAULT_HOSTNAME

_OF_THE_HOST = Dns()
# What docker's libnetwork falls back to when a host has no server that a container could reach.
_PUBLIC = Dns(nameservers=("8.8.8.8", "8.8.4.4"))


def host_files(meta: Meta, *, network: str, dns: Dns = _OF_THE_HOST) -> Mapping[str, bytes]:
    """Contents by target. A step on the host's network resolves names as the host does, but for what `dns` says."""
    try:
        host = Path("/etc/resolv.conf").read_bytes()[: 64 << 10]
    except OSError:
        host = b""
    return {
        "/etc/hosts": hosts(meta.hostname, meta.extra_hosts),
        "/etc/resolv.conf": resolv_conf(host, network=network, dns=dns),
    }


def hosts(hostname: str, extra: Iterable[HostIP] = ()) -> bytes:
    """/etc/hosts with the lines `extra` at its end."""
    lines = [f"127.0.0.1\tlocalhost {hostname or DEFAULT_HOSTNAME}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{entry.ip}\t{entry.host}" for entry in extra]
    return "".join(line + "\n" for line in lines).encode()


def resolv_conf(host: bytes, *, network: str, dns: Dns = _OF_THE_HOST) -> bytes:
    """/etc/resolv.conf from the host's and `dns`. Without the host's network its loopback servers answer nobody."""
    text = with_dns(host, dns)
    if network != "host":
        lines = [line for line in text.splitlines() if not _is_loopback(_server(line))]
        text = b"".join(line + b"\n" for line in lines)
    return text if any(map(_server, text.splitlines())) else with_dns(text, _PUBLIC)


def with_dns(resolv_conf: bytes, dns: Dns) -> bytes:
    """The host's `resolv_conf` with the kinds of line that `dns` has in place of its own (resolv.conf(5))."""
    ours = {
        "nameserver": [f"nameserver {address}" for address in dns.nameservers],
        "search": ["search " + " ".join(dns.search_domains)] if dns.search_domains else [],
        "options": ["options " + " ".join(dns.options)] if dns.options else [],
    }
    replaced = {kind.encode() for kind, lines in ours.items() if lines}
    if not replaced:
        return resolv_conf
    if b"search" in replaced:
        replaced.add(b"domain")  # the older spelling of one search domain
    kept = [line for line in resolv_conf.splitlines() if line.split()[:1] not in [[kind] for kind in replaced]]
    return b"\n".join([*kept, *(line.encode() for lines in ours.values() for line in lines), b""])


def _server(line: bytes) -> str:
    words = line.decode(errors="replace").split()
    return words[1] if len(words) >= 2 and words[0] == "nameserver" else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
