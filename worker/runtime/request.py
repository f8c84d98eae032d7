"""From a spec and its secrets to the message that a supervisor gets: validated, planned, plain data.

Pure. The message is the only thing that holds the secrets' bytes, and it travels in a memfd, never in a file.
"""

from __future__ import annotations

import os
import posixpath
import resource
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from buildengine.errors import HostError, UserError
from buildengine.ids import LARGEST_ID
from worker.runtime import bundle, devices, seccomp
from worker.runtime.descriptors import limited
from worker.runtime.emulation import not_under
from worker.runtime.plan import plan
from worker.runtime.spec import ProcessSpec
from worker.session import SecretBytes


def build(
    spec: ProcessSpec, secrets: Mapping[str, SecretBytes], *, oci: bundle.Program | None = None, group: str
) -> dict[str, Any]:
    """The request for the step in control group `group`. Raises UserError or HostError."""
    _check(spec)
    spec = limited(spec)
    environment = _environment(spec, secrets)
    rules = devices.EVERYTHING if spec.insecure else devices.DEFAULT
    if oci and oci.name == "runc" and not spec.insecure:
        rules = [*rules, devices.TUN]
    limits = spec.limits
    return {
        "plan": [operation.wire() for operation in plan(spec, secrets, oci=oci is not None)],
        "process": _process(spec, environment),
        "cgroup": {
            "parent": _cgroup_parent(spec.cgroup_parent),
            "memory": limits.memory,
            "cpus": limits.cpus,
            "pids": limits.pids,
            "needed": limits.is_needed,
            "devices": rules,
        },
        "oci": bundle.message(spec, environment, oci, group) if oci else None,
        "emulation": _emulation(spec, oci),
    }


def build_joining(spec: ProcessSpec, secrets: Mapping[str, SecretBytes]) -> dict[str, Any]:
    """The request for one more process of a step that runs; its root and its mounts are there already."""
    _check(spec)
    return {"process": _process(limited(spec), _environment(spec, secrets))}


def _process(spec: ProcessSpec, environment: dict[str, str]) -> dict[str, Any]:
    return {
        "argv": list(spec.argv),
        "env": environment,
        "cwd": spec.cwd,
        "uid": spec.uid,
        "gid": spec.gid,
        "groups": list(spec.groups),
        "insecure": spec.insecure,
        "unprivileged": spec.unprivileged,
        "terminal": spec.terminal,
        "seccomp": b"" if spec.insecure else _filter(),
        "rlimits": [(rlimit_number(r.name), r.soft, r.hard) for r in spec.rlimits],
    }


def _emulation(spec: ProcessSpec, oci: bundle.Program | None) -> dict[str, Any] | None:
    """What the supervisor registers for the step: an `Emulator`'s fields, and whether it gets a network of its own."""
    if spec.emulator is None:
        return None
    if oci is not None:
        raise not_under(oci.name, spec.emulator)
    return asdict(spec.emulator) | {"network": spec.network == "none"}


def _check(spec: ProcessSpec) -> None:
    if not spec.argv or not spec.argv[0]:
        raise UserError("there is no command to run", hint='write RUN command, or RUN ["program", "argument"]')
    texts = {"command": spec.argv, "environment": spec.env, "working directory": (spec.cwd,), "host": (spec.hostname,)}
    for what, parts in texts.items():
        if any("\0" in part for part in parts):
            raise UserError(f"the {what} of the step has a NUL byte in it: no process can be given that")
    if not spec.cwd.startswith("/"):
        raise UserError(f"the working directory {spec.cwd!r} is not absolute")
    if len(spec.hostname.encode()) > 64:  # __NEW_UTS_LEN
        raise UserError(f"the host name {spec.hostname!r} is longer than 64 bytes")
    for number in (spec.uid, spec.gid, *spec.groups):
        if not 0 <= number <= LARGEST_ID:
            raise UserError(f"{number} is no user or group id")
    for limit in spec.rlimits:
        endless = limit.hard == resource.RLIM_INFINITY
        if not endless and (limit.soft == resource.RLIM_INFINITY or limit.soft > limit.hard):
            raise UserError(f"ulimit {limit.name}: the soft limit {limit.soft} is above the hard limit {limit.hard}")


def _environment(spec: ProcessSpec, secrets: Mapping[str, SecretBytes]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for entry in spec.env:
        name, equals, value = entry.partition("=")
        if name and equals:
            environment[name] = value
    for name in spec.secret_env:
        value = os.fsdecode(secrets[name].reveal())
        if "\0" in value:
            raise UserError(f"the secret for ${name} holds a NUL byte: it cannot be an environment variable")
        environment[name] = value
    return environment


def rlimit_number(name: str) -> int:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if not isinstance(number, int) or not name.isidentifier():
        raise UserError(f"unknown ulimit {name!r}", hint="see getrlimit(2): nofile, nproc, core, memlock, ...")
    return number


def _filter() -> bytes:
    machine = os.uname().machine
    try:
        return seccomp.program(machine)
    except KeyError:
        raise HostError(
            f"no seccomp filter for {machine} processors, and a step never runs without one",
            hint="use an x86_64 or aarch64 host, or an insecure step",
        ) from None


def _cgroup_parent(path: str) -> str:
    clean = posixpath.normpath("/" + path).strip("/")
    if ".." in path.split("/") or "\0" in path:
        raise UserError(f"cgroup parent {path!r} leaves its hierarchy")
    return clean
