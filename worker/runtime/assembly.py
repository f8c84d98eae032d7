"""The root of a step under construction, and what of it can be made before anyone knows which step it will be.

`Assembly.prepare` runs while PID 1 waits for its request: it makes the file systems that nearly every step gets as
detached mounts. An action later takes one (`new`), or makes it on the spot if this step wants it otherwise.
Standard library only; runs in PID 1's own namespaces, where the host's paths are still there.
"""

from __future__ import annotations

import os
import stat

from worker.runtime import syscalls, targets
from worker.runtime.overlay import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Making = tuple[Callable[..., int], tuple[Any, ...]]  # a function that gives a detached mount, its arguments
    Node = tuple[str, int, int, int]  # name, major, minor, mode

# A directory that every /proc has and nobody uses. What must be attached for a moment is attached here, in this
# step's own namespace, and vanishes with the old root.
SCRATCH = "/proc/fs"
ROOT = SCRATCH + "/root"

INERT = syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC


def new_devices(
    nodes: tuple[Node, ...], links: tuple[tuple[str, str], ...], folders: tuple[str, ...], mknod: bool
) -> int:
    """A tmpfs with device files of its own: chmod of the step's /dev/null must not reach the host's.

    Where this host does not let us make them, regular files stand in, over which its own can be bound.
    """
    dev = syscalls.new_filesystem("tmpfs", (("mode", "755"), ("size", "64m")), syscalls.ATTR_NOSUID)
    for folder in folders:
        os.mkdir(folder, 0o755, dir_fd=dev)
    for name, major, minor, mode in nodes:
        if not mknod or not _make_node(dev, name, mode, os.makedev(major, minor)):
            os.mknod(name, 0o600, dir_fd=dev)
    for name, text in links:
        os.symlink(text, name, dir_fd=dev)
    return dev


def _make_node(dev: int, name: str, mode: int, device: int) -> bool:
    try:
        os.mknod(name, mode, device, dir_fd=dev)
    except PermissionError:
        return False
    os.chmod(name, mode & 0o7777, dir_fd=dev)
    return True


class Assembly:
    def __init__(self, overlay: Overlay, cgroups: list[tuple[str, str]], *, mknod: bool) -> None:
        """`cgroups`: (name below /sys/fs/cgroup or "", the step's own directory)."""
        self.overlay = overlay
        self.mknod = mknod
        self.cgroups = cgroups
        self.attributes = 0  # of every mount that may hold device files: ATTR_NODEV where nothing else stops them
        self.network = -1  # an empty network namespace of the step's own user namespace
        self.root = -1
        self.bare = -1  # the root layer without what is mounted on it
        self.null = -1  # the step's own /dev/null
        self.stubs: targets.Stubs
        self._places = 0
        self._ready: dict[Any, int] = {}
        self.attach(syscalls.new_filesystem("tmpfs", (("mode", "700"),), syscalls.ATTR_NOSUID), SCRATCH)
        os.mkdir(ROOT)
        # what hides directories; attached, since before Linux 6.15 only an attached mount can be cloned
        self.empty = syscalls.new_filesystem("tmpfs", (("size", "4k"),), syscalls.ATTR_RDONLY)
        self.attach(self.empty, self.place())

    def prepare(self, makings: list[Making]) -> None:
        for make, arguments in makings:
            self._ready[make, arguments] = make(*arguments)

    def new(self, make: Callable[..., int], *arguments: Any) -> int:
        """`make(*arguments)`, a detached mount; ready-made if `prepare` had it in its list."""
        ready = self._ready.pop((make, arguments), None)
        return make(*arguments) if ready is None else ready

    def forget(self) -> None:
        """Use nothing that was prepared: the namespaces are others now."""
        for fd in self._ready.values():
            os.close(fd)
        self._ready.clear()

    def place(self, *, directory: bool = True) -> str:
        """A fresh path to attach something to, or to put a file in memory at."""
        self._places += 1
        path = f"{SCRATCH}/{self._places}"
        if directory:
            os.mkdir(path)
        return path

    def attach(self, mounted: int, path: str) -> None:
        """On a path of the old root."""
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        syscalls.attach(mounted, target)
        os.close(target)

    def target(self, path: str, *, directory: bool, nofollow: bool = False) -> int:
        """The place in the new root, made if it is missing."""
        fd = targets.find(self.root, path, directory=directory, nofollow=nofollow)
        if fd is None:
            fd = targets.make(self.root, path, directory=directory, made=self.stubs.note)
        return fd

    def mount(self, mounted: int, path: str, *, nofollow: bool = False) -> None:
        """Put a detached mount on `path` in the new root. Closes it."""
        directory = stat.S_ISDIR(os.fstat(mounted).st_mode)
        target = self.target(path, directory=directory, nofollow=nofollow)
        syscalls.attach(mounted, target)
        os.close(target)
        os.close(mounted)
