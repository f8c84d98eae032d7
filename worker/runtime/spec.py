"""What a step runs, in what, with what: frozen values that can be written as JSON and read back.

A spec holds everything but the secrets' bytes, which travel beside it, so a spec can be shown, stored and
compared. Nothing here knows how it will be run; `plan.py` and `bundle.py` decide that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from buildengine.values import dataclass
from cache.overlay import TreeMount

if TYPE_CHECKING:  # the engine, and so a cached build, imports this module for its limits
    from worker.runtime.emulation import Emulator

DEFAULT_HOSTNAME = "buildkitsandbox"  # BuildKit's: it is in /etc/hosts and in the output of scripts


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMountPoint:
    """A tree, or the file or directory `selector` of it. Writes to a tree without an upper directory go to memory
    and vanish with the step, as with a bind mount that is read-write."""

    kind: ClassVar[str] = "tree"
    target: str
    tree: TreeMount
    selector: str = ""
    readonly: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A file or directory of this host, without what is mounted below it: a cache mount, a socket."""

    kind: ClassVar[str] = "bind"
    target: str
    source: str
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsMount:
    """`size` in bytes, 0 for the kernel's default; `options` are more words for mount, such as `noexec`."""

    kind: ClassVar[str] = "tmpfs"
    target: str
    size: int = 0
    mode: int = 0o1777
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """A read-only file in memory; its bytes are in the `secrets` beside the spec, under `target`."""

    kind: ClassVar[str] = "secret"
    target: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o400


Mount = TreeMountPoint | BindMount | TmpfsMount | SecretFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """`name` as in ulimits: `nofile`, `nproc`, ...; -1 means unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLimits:
    """What all processes of a step may use together. 0 means no limit; `memory` in bytes.

    `is_needed`: where the host cannot enforce those of memory and CPU, nothing runs.
    """

    memory: int = 0
    cpus: float = 0
    pids: int = 32768
    is_needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One step. `env` entries are `KEY=value`; `secret_env` names are looked up in the secrets beside the spec."""

    id: str
    argv: tuple[str, ...]
    root: TreeMount
    env: tuple[str, ...] = ()
    secret_env: tuple[str, ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    readonly_root: bool = False
    mounts: tuple[Mount, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))  # target -> contents
    hostname: str = DEFAULT_HOSTNAME
    network: Literal["host", "none"] = "host"
    insecure: bool = False
    unprivileged: bool = False  # no capability, and no way to get one: no_new_privs
    terminal: bool = False  # its streams are one terminal, of its own /dev/pts
    rlimits: tuple[Rlimit, ...] = ()
    limits: StepLimits = StepLimits()
    cgroup_parent: str = ""
    shm_size: int = 64 << 20  # bytes
    emulator: Emulator | None = None  # to be registered for this step

    def to_json(self) -> dict[str, Any]:
        doc = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("root", "mounts", "files", "rlimits", "limits", "emulator")
        }
        return doc | {
            "root": asdict(self.root),
            "mounts": [{"kind": mount.kind} | asdict(mount) for mount in self.mounts],
            "files": {target: base64.b64encode(data).decode() for target, data in self.files.items()},
            "rlimits": [asdict(limit) for limit in self.rlimits],
            "limits": asdict(self.limits),
            "emulator": _emulator_json(self.emulator),
        }


def from_json(doc: Mapping[str, Any]) -> ProcessSpec:
    """The inverse of `to_json`. The document is our own: a wrong one is a KeyError or TypeError."""
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list | tuple) else value for key, value in doc.items()
    }
    built: dict[str, Any] = {
        "root": _tree(doc["root"]),
        "mounts": tuple(_mount(item) for item in doc["mounts"]),
        "files": {target: base64.b64decode(data) for target, data in doc["files"].items()},
        "rlimits": tuple(Rlimit(**item) for item in doc["rlimits"]),
        "limits": StepLimits(**doc["limits"]),
        "emulator": _emulator(doc["emulator"]),
    }
    return ProcessSpec(**plain | built)


def _tree(doc: Mapping[str, Any]) -> TreeMount:
    return TreeMount(lowers=tuple(doc["lowers"]), upper=doc["upper"], work=doc["work"])


def _mount(doc: Mapping[str, Any]) -> Mount:
    rest = {key: value for key, value in doc.items() if key != "kind"}
    match doc["kind"]:
        case "tree":
            return TreeMountPoint(**rest | {"tree": _tree(rest["tree"])})
        case "bind":
            return BindMount(**rest)
        case "tmpfs":
            return TmpfsMount(**rest | {"options": tuple(rest["options"])})
        case _:
            return SecretFile(**rest)


def _emulator_json(emulator: Emulator | None) -> dict[str, str] | None:
    if emulator is None:
        return None
    return asdict(emulator) | {"magic": emulator.magic.hex(), "mask": emulator.mask.hex()}


def _emulator(doc: Mapping[str, str] | None) -> Emulator | None:
    if doc is None:
        return None
    from worker.runtime.emulation import Emulator

    magic, mask = bytes.fromhex(doc["magic"]), bytes.fromhex(doc["mask"])
    return Emulator(name=doc["name"], program=doc["program"], magic=magic, mask=mask)
