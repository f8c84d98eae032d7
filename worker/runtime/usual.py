"""What nearly every step gets in its root, as data: the plan asks for it, PID 1 makes it ahead of its request.

Standard library only. Facts: containerd pkg/oci/mounts.go, runc libcontainer/specconv.
"""

from __future__ import annotations

import stat

from worker.runtime import syscalls
from worker.runtime.actions import new_bind, new_folders
from worker.runtime.assembly import INERT, new_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.runtime.assembly import Making

NODES = tuple(
    (name, major, minor, stat.S_IFCHR | 0o666)
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    )
)  # fmt: skip
LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
)  # fmt: skip
FOLDERS = ("pts", "shm", "mqueue")

SHM_SIZE = 64 << 20
_PTS = (("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"))

# fstype, options, attributes
Filesystem = tuple[str, tuple[tuple[str, "str | None"], ...], int]
DEVPTS: Filesystem = ("devpts", _PTS, syscalls.ATTR_NOSUID | syscalls.ATTR_NOEXEC)
PROC: Filesystem = ("proc", (), INERT)
MQUEUE: Filesystem = ("mqueue", (), INERT)


def shm(size: int) -> Filesystem:
    return "tmpfs", (("mode", "1777"), ("size", str(size))), INERT


def sysfs(*, writable: bool) -> Filesystem:
    return "sysfs", (), INERT | (0 if writable else syscalls.ATTR_RDONLY)


def makings(cgroups: list[tuple[str, str]], *, oci: bool, mknod: bool) -> list[Making]:
    """The mounts that a step with default options will ask for."""
    make = syscalls.new_filesystem
    ours: list[Making] = [(new_devices, (NODES, LINKS, FOLDERS, mknod)), (make, DEVPTS), (make, shm(SHM_SIZE))]
    if oci:  # the runtime makes the others
        return ours
    names = tuple(name for name, _ in cgroups if name)
    if names:
        ours.append((new_folders, (names, INERT | syscalls.ATTR_RDONLY)))
    ours += [(new_bind, (path, INERT | syscalls.ATTR_RDONLY)) for _, path in cgroups]
    return [*ours, (make, PROC), (make, sysfs(writable=False)), (make, MQUEUE)]
