"""The OCI side of a spec: config.json for runc or crun, as a pure function.

The runtime gets a root that our plan has built already, mounts and all, so that one code path resolves every
target and removes every stub. What is left to it are the things that make a container: namespaces, the file
systems that show them, masks, devices, filter, user, exec.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from buildengine.errors import HostError
from buildengine.values import dataclass
from worker.runtime import capabilities, seccomp
from worker.runtime.assembly import ROOT
from worker.runtime.plan import MASKED, READONLY
from worker.runtime.spec import ProcessSpec

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An OCI runtime of this host."""

    name: Literal["runc", "crun"]
    path: str


def find(name: Literal["runc", "crun"]) -> Program:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise HostError(f"{name} is not installed", hint=f"install {name}, or use the built-in runtime")
    return Program(name=name, path=path)


def message(spec: ProcessSpec, environment: Mapping[str, str], program: Program, group: str) -> dict[str, Any]:
    """What PID 1 needs to run `program`."""
    return {
        "program": program.path,
        # our group has the limits and the devices: crun need not make another. runc cannot be told so.
        "options_in_our_group": ["--cgroup-manager=disabled"] if program.name == "crun" else [],
        "hide_unified": program.name == "crun",
        "config": json.dumps(config(spec, environment, group)).encode(),
    }


def config(spec: ProcessSpec, environment: Mapping[str, str], group: str) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "root": {"path": ROOT, "readonly": spec.readonly_root},
        "hostname": spec.hostname,
        "process": _process(spec, environment),
        "mounts": _mounts(spec),
        "linux": _linux(spec, group),
    }


def _process(spec: ProcessSpec, environment: Mapping[str, str]) -> dict[str, Any]:
    wanted = capabilities.ALL if spec.insecure else 0 if spec.unprivileged else capabilities.DEFAULT
    names = capabilities.names(wanted & capabilities.bounding_set(Path("/proc/self/status").read_text()))
    sets = ["bounding", "effective", "permitted"] + (["inheritable", "ambient"] if spec.insecure else [])
    return {
        "terminal": False,
        "user": {"uid": spec.uid, "gid": spec.gid, "additionalGids": list(spec.groups), "umask": 0o022},
        "args": list(spec.argv),
        "env": [f"{name}={value}" for name, value in environment.items()],
        "cwd": spec.cwd,
        "capabilities": dict.fromkeys(sets, names),
        "rlimits": [
            {"type": f"RLIMIT_{r.name.upper()}", "soft": r.soft % 2**64, "hard": r.hard % 2**64} for r in spec.rlimits
        ],
        "noNewPrivileges": spec.unprivileged,
    }


def _mounts(spec: ProcessSpec) -> list[dict[str, Any]]:
    inert = ["nosuid", "noexec", "nodev"]
    shown = [*inert] if spec.insecure else [*inert, "ro"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": inert},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": inert},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": shown},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": shown},
    ]


def _linux(spec: ProcessSpec, group: str) -> dict[str, Any]:
    namespaces = ["pid", "mount", "ipc", "uts", "cgroup"] + (["network"] if spec.network == "none" else [])
    allowed = [{"allow": True, "type": kind, "access": "rwm"} for kind in "cb"] if spec.insecure else []
    linux: dict[str, Any] = {
        "cgroupsPath": group,  # relative: below the group that PID 1 is in
        "namespaces": [{"type": name} for name in namespaces],
        "resources": {"devices": [{"allow": False, "access": "rwm"}, *allowed]},
    }
    if not spec.insecure:
        linux["maskedPaths"] = list(MASKED)
        linux["readonlyPaths"] = list(READONLY)
        linux["seccomp"] = seccomp.oci_profile(os.uname().machine)
    return linux
