"""The files every step sees bind-mounted: /etc/hosts, /etc/resolv.conf (executor/oci/hosts.go, resolvconf.go)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llb.ops import Meta
from worker.context import Dns

_HOSTS_OWN = Dns()
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def host_files(meta: Meta, *, network: str, dns: Dns = _HOSTS_OWN) -> Mapping[str, bytes]:
    """Contents by target. A step on the host's network resolves names as the host does, but for what `dns` says."""
    hosts = _HOSTS + (f"127.0.0.1\t{meta.hostname}\n" if meta.hostname else "127.0.0.1\tbuildkitsandbox\n")
    hosts += "".join(f"{extra.ip}\t{extra.host}\n" for extra in meta.extra_hosts)
    return {"/etc/hosts": hosts.encode(), "/etc/resolv.conf": _resolv_conf(network, dns)}


def _resolv_conf(network: str, dns: Dns) -> bytes:
    if network == "none":
        return b""
    try:
        hosts = Path("/etc/resolv.conf").read_bytes()[: 64 << 10]
    except OSError:
        hosts = b""
    return with_dns(hosts, dns)


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
