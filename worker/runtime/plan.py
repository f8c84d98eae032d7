"""From a `ProcessSpec` to the sorted list of operations that build its root: pure, nothing is touched.

Mounts are sorted by target, so parents come first; at equal targets the user's come last and cover ours. For an
OCI runtime the plan leaves out what the runtime does itself (`bundle.py` tells it), and nothing else.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping

from buildengine.errors import HostError, UserError
from cache.overlay import TreeMount
from worker.runtime import operations as do
from worker.runtime import syscalls, usual
from worker.runtime.overlay import MAX_LAYERS
from worker.runtime.spec import BindMount, Mount, ProcessSpec, SecretFile, TmpfsMount, TreeMountPoint
from worker.session import SecretBytes

# containerd pkg/oci/spec.go, populateDefaultUnixSpec
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CHARACTER, _BLOCK = stat.S_IFCHR, stat.S_IFBLK
# BuildKit util/entitlements/security: what an insecure step finds besides
_INSECURE_NODES = (
    ("kmsg", 1, 11, _CHARACTER | 0o644), ("cuse", 10, 203, _CHARACTER | 0o600), ("fuse", 10, 229, _CHARACTER | 0o666),
    ("kvm", 10, 232, _CHARACTER | 0o660), ("net/tun", 10, 200, _CHARACTER | 0o666),
    ("loop-control", 10, 237, _CHARACTER | 0o660), *((f"loop{n}", 7, n, _BLOCK | 0o660) for n in range(8)),
)  # fmt: skip
_NOSUID, _NODEV, _NOEXEC, _RDONLY = (
    syscalls.ATTR_NOSUID, syscalls.ATTR_NODEV, syscalls.ATTR_NOEXEC, syscalls.ATTR_RDONLY,
)  # fmt: skip
_INERT = _NOSUID | _NODEV | _NOEXEC
_FLAGS = {"ro": _RDONLY, "nosuid": _NOSUID, "nodev": _NODEV, "noexec": _NOEXEC}


def plan(spec: ProcessSpec, secrets: Mapping[str, SecretBytes], *, oci: bool = False) -> tuple[do.Operation, ...]:
    """What PID 1 does, in order. Raises UserError for mounts that no step may have."""
    root = spec.root
    _bounded(root)
    first: list[do.Operation] = [do.Root(lowers=root.lowers, upper=root.upper, work=root.work)]
    last: list[do.Operation] = []
    users = [_user(mount, secrets) for mount in spec.mounts]
    mounts = [*_uncovered([*_devices(spec), *_own(spec, oci)], users), *_files(spec), *users]
    if not oci:
        first.append(do.Hostname(name=spec.hostname))
        if spec.network == "none":
            first.append(do.Network())  # before sysfs, which shows the devices of the namespace that mounts it
        if not spec.insecure:
            last += [do.Mask(paths=MASKED), do.Freeze(paths=READONLY)]
    last.append(do.Workdir(path=spec.cwd, uid=spec.uid, gid=spec.gid))
    if spec.readonly_root and not oci:
        last.append(do.ReadonlyRoot())
    return (*first, *sorted(mounts, key=lambda mount: mount.target.split("/")), *last)


def _uncovered(ours: Iterable[do.Targeted], users: Iterable[do.Targeted]) -> Iterator[do.Targeted]:
    """Without file systems that nobody would see, such as /dev/shm below the one that --shm-size asks for."""
    covered = {mount.target for mount in users}
    return (each for each in ours if each.target not in covered or not isinstance(each, do.Filesystem))


def _bounded(tree: TreeMount) -> None:
    if len(tree.lowers) > MAX_LAYERS:
        raise HostError(
            f"a tree of {len(tree.lowers)} layers cannot be mounted: overlayfs takes {MAX_LAYERS}",
            hint="flatten it: copy what it shows into one layer",
        )


def _devices(spec: ProcessSpec) -> list[do.Targeted]:
    nodes = usual.NODES + (_INSECURE_NODES if spec.insecure else ())
    folders = usual.FOLDERS + (("net",) if spec.insecure else ())
    return [
        do.Devices(target="/dev", nodes=nodes, links=usual.LINKS, folders=folders),
        _filesystem("/dev/pts", usual.DEVPTS),
        _filesystem("/dev/shm", usual.shm(spec.shm_size)),
    ]


def _own(spec: ProcessSpec, oci: bool) -> list[do.Targeted]:
    """File systems that show the step's own namespaces."""
    if oci:
        return [do.Mountpoint(target="/proc"), do.Mountpoint(target="/sys")]
    return [
        _filesystem("/proc", usual.PROC, nofollow=True),
        _filesystem("/sys", usual.sysfs(writable=spec.insecure), nofollow=True),
        _filesystem("/dev/mqueue", usual.MQUEUE),
        do.Cgroup(target="/sys/fs/cgroup", writable=spec.insecure),
    ]


def _filesystem(target: str, filesystem: usual.Filesystem, *, nofollow: bool = False) -> do.Filesystem:
    fstype, options, attributes = filesystem
    return do.Filesystem(target=target, fstype=fstype, options=options, attributes=attributes, nofollow=nofollow)


def _files(spec: ProcessSpec) -> list[do.Targeted]:
    return [
        do.File(target=_target(target), contents=contents, attributes=_INERT) for target, contents in spec.files.items()
    ]


def _user(mount: Mount, secrets: Mapping[str, SecretBytes]) -> do.Targeted:
    target = _target(mount.target)
    match mount:
        case TreeMountPoint(tree=tree, selector=selector, readonly=readonly):
            _bounded(tree)
            part = "" if posixpath.normpath("/" + selector) == "/" else selector
            return do.Tree(
                target=target,
                lowers=tree.lowers,
                upper=tree.upper,
                work=tree.work,
                selector=part,
                readonly=readonly,
            )
        case BindMount(source=source, readonly=readonly):
            return do.Bind(target=target, source=source, readonly=readonly)
        case TmpfsMount():
            return _tmpfs(mount, target)
        case SecretFile(uid=uid, gid=gid, mode=mode):
            attributes = _NOSUID | _NODEV | (0 if mode & 0o111 else _NOEXEC)
            contents = secrets[mount.target].reveal()
            return do.File(target=target, contents=contents, uid=uid, gid=gid, mode=mode, attributes=attributes)


def _tmpfs(mount: TmpfsMount, target: str) -> do.Filesystem:
    attributes = _NOSUID
    options: list[tuple[str, str | None]] = [("mode", f"{mount.mode:o}")]
    if mount.size:
        options.append(("size", str(mount.size)))
    for word in mount.options:
        if word in _FLAGS:
            attributes |= _FLAGS[word]
        else:
            key, equals, value = word.partition("=")
            options.append((key, value if equals else None))
    return do.Filesystem(target=target, fstype="tmpfs", options=tuple(options), attributes=attributes)


def _target(path: str) -> str:
    """The path as docker cleans it. /proc and /sys stay the kernel's: what is masked there must be masked."""
    target = posixpath.normpath("/" + path.lstrip("/"))
    if "\0" in path or target == "/" or target.split("/")[1] in ("proc", "sys"):
        raise UserError(f"cannot mount anything at {path!r}", hint="choose a target outside /proc and /sys, not /")
    return target
