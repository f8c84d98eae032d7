"""Flags of a build that are about its steps: --network, --add-host, --ulimit, --cgroup-parent and the host name."""

from __future__ import annotations

from collections.abc import Mapping

from llb.state import State

_NAMES = (
    "force-network-mode", "add-hosts", "ulimit", "cgroup-parent", "hostname", "build-arg:BUILDKIT_SANDBOX_HOSTNAME",
)  # fmt: skip


def under_flags(state: State, options: Mapping[str, str]) -> State:
    """For commands to run as the flags say. Raises UserError for a value that cannot be meant."""
    if not any(options.get(name) for name in _NAMES):
        return state
    from frontends.dockerfile import options as reading  # few builds have any

    read = reading.read(options)
    state = state.with_network(read.network)
    for host in read.extra_hosts:
        state = state.with_extra_host(host.host, host.ip)
    for limit in read.ulimits:
        state = state.with_ulimit(limit.name, limit.soft, limit.hard)
    if read.cgroup_parent:
        state = state.with_cgroup_parent(read.cgroup_parent)
    return state.with_hostname(read.hostname) if read.hostname else state
