"""The control groups of a step, behind one class for each layout of a host: v1, v2, none.

A step's group is made before its request arrives, since moving a process into a v1 group can wait for an RCU
grace period (7 ms measured). Groups lie below the engine's own group where the layout allows it, so that a
limit on the engine binds its steps too. Standard library only: launcher and supervisor use it.
"""

from __future__ import annotations

import errno
import os

from worker.runtime import devices, syscalls
from worker.runtime.controlfiles import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Group(Protocol):
        """The group of one step."""

        devices_enforced: bool

        def attach(self, pid: int) -> None: ...
        def limit(self, memory: int, cpus: float, pids: int) -> None:
            """Zero means no limit. Raises OSError(ENOTSUP) when this host cannot enforce memory or cpus."""

        def allow(self, rules: list[devices.Rule]) -> None:
            """Enforce exactly these device rules, if the host can at all."""

        def oom_kills(self) -> int: ...
        def peak_memory(self) -> int:
            """Bytes; 0 when not known."""

        def views(self) -> list[tuple[str, str]]:
            """(name below /sys/fs/cgroup, directory): what the step may see of itself."""

        def directories(self) -> list[str]: ...


_PERIOD = 100_000  # us, of a CPU quota
_ATTEMPTS = 50


def _field(text: str, name: str) -> int:
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


def _unsupported(what: str) -> OSError:
    return OSError(errno.ENOTSUP, f"this host has no cgroup controller to limit {what} with")


class V1Group:
    """One directory in each hierarchy; `of` names it by controller."""

    def __init__(self, of: dict[str, str]) -> None:
        self.of = of
        self.devices_enforced = "devices" in of
        self._rules: list[devices.Rule] = []
        self.allow(devices.DEFAULT)

    def directories(self) -> list[str]:
        return list(dict.fromkeys(self.of.values()))

    def attach(self, pid: int) -> None:
        for directory in self.directories():
            write(directory + "/cgroup.procs", str(pid))

    def limit(self, memory: int, cpus: float, pids: int) -> None:
        if memory:
            if "memory" not in self.of:
                raise _unsupported("memory")
            write(self.of["memory"] + "/memory.limit_in_bytes", str(memory))
            swap = self.of["memory"] + "/memory.memsw.limit_in_bytes"  # absent without swap accounting
            if os.path.exists(swap):
                write(swap, str(memory))
        if cpus:
            if "cpu" not in self.of:
                raise _unsupported("CPU time")
            write(self.of["cpu"] + "/cpu.cfs_period_us", str(_PERIOD))
            write(self.of["cpu"] + "/cpu.cfs_quota_us", str(max(1000, int(cpus * _PERIOD))))
        if pids and "pids" in self.of:
            write(self.of["pids"] + "/pids.max", str(pids))

    def allow(self, rules: list[devices.Rule]) -> None:
        if rules == self._rules or not self.devices_enforced:
            return
        self._rules = rules
        write(self.of["devices"] + "/devices.deny", "a")
        write(self.of["devices"] + "/devices.allow", *(devices.v1_line(rule) for rule in rules))

    def oom_kills(self) -> int:
        """Kills in this group and below (a step with a writable cgroup may have made groups of its own)."""
        if "memory" not in self.of:
            return 0
        below = [directory for directory, _, _ in os.walk(self.of["memory"])]
        return sum(_field(read(directory + "/memory.oom_control"), "oom_kill") for directory in below)

    def peak_memory(self) -> int:
        return int(read(self.of["memory"] + "/memory.max_usage_in_bytes")) if "memory" in self.of else 0

    def views(self) -> list[tuple[str, str]]:
        return list(self.of.items())


class V2Group:
    """One directory. Without controllers it still carries the device program."""

    devices_enforced = False

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def directories(self) -> list[str]:
        return [self.directory]

    def attach(self, pid: int) -> None:
        write(self.directory + "/cgroup.procs", str(pid))

    def _set(self, name: str, text: str, what: str = "") -> None:
        try:
            write(f"{self.directory}/{name}", text)
        except FileNotFoundError:  # the controller is not enabled here
            if what:
                raise _unsupported(what) from None

    def limit(self, memory: int, cpus: float, pids: int) -> None:
        if memory:
            self._set("memory.max", str(memory), "memory")
            self._set("memory.swap.max", "0")
        if cpus:
            self._set("cpu.max", f"{max(1000, int(cpus * _PERIOD))} {_PERIOD}", "CPU time")
        if pids:
            self._set("pids.max", str(pids))

    def allow(self, rules: list[devices.Rule]) -> None:
        """Call once: programs add up, and each must agree."""
        try:
            program = syscalls.load_device_program(devices.ebpf(rules))
        except OSError:  # no BPF in this kernel or for this process
            return
        group = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.attach_device_program(group, program)
            self.devices_enforced = True
        except OSError:
            pass
        finally:
            os.close(group)
            os.close(program)

    def oom_kills(self) -> int:
        try:
            return _field(read(self.directory + "/memory.events"), "oom_kill")
        except FileNotFoundError:
            return 0

    def peak_memory(self) -> int:
        try:
            return int(read(self.directory + "/memory.peak"))  # Linux 5.19
        except FileNotFoundError:
            return 0

    def views(self) -> list[tuple[str, str]]:
        return [("", self.directory)]


class NoGroup:
    """A host without usable control groups."""

    devices_enforced = False

    def directories(self) -> list[str]:
        return []

    def attach(self, pid: int) -> None:
        pass

    def limit(self, memory: int, cpus: float, pids: int) -> None:
        if memory or cpus:
            raise _unsupported("memory" if memory else "CPU time")

    def allow(self, rules: list[devices.Rule]) -> None:
        pass

    def oom_kills(self) -> int:
        return 0

    def peak_memory(self) -> int:
        return 0

    def views(self) -> list[tuple[str, str]]:
        return []


class Layout:
    """The hierarchies of this host: `v1` has controller -> (mount point, engine's own directory), `v2` one pair."""

    def __init__(self, v1: dict[str, tuple[str, str]], v2: tuple[str, str] | None) -> None:
        self.v1 = {name: v1[name] for name in ("memory", "pids", "devices", "cpu") if name in v1}
        self.v2 = v2
        self.kind = "v1" if self.v1 else "v2" if v2 else "none"
        self._mkdir: Callable[[str], None] = os.mkdir
        every = [*v1.values(), *([v2] if v2 else [])]
        self.mount_points = list(dict.fromkeys(mount for mount, _ in every))
        self.own = list(dict.fromkeys(own for _, own in every))

    def make(self, name: str, parent: str = "") -> Group:
        """A new group `name`, below `parent` (a path in every hierarchy) or in the place of our choice."""
        try:
            if self.v1:
                return V1Group(self._make_v1(name, parent))
            if self.v2:
                return V2Group(self._directory(self.v2, name, parent))
        except OSError as error:
            if parent or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
                raise
        if parent:
            raise OSError(errno.ENOTSUP, "this host has no control groups that could hold it", parent)
        return NoGroup()

    def _make_v1(self, name: str, parent: str) -> dict[str, str]:
        made: dict[tuple[str, str], str] = {}  # cpu,cpuacct are one hierarchy on many hosts
        of: dict[str, str] = {}
        for controller, place in self.v1.items():
            if place not in made:
                made[place] = self._directory(place, name, parent)
            of[controller] = made[place]
        return of

    def _directory(self, place: tuple[str, str], name: str, parent: str) -> str:
        mount, own = place
        if not parent:
            base = usable_base(own, mount) if self.kind == "v2" else own
            self._mkdir(f"{base.rstrip('/')}/{name}")
            return f"{base.rstrip('/')}/{name}"
        base = f"{mount.rstrip('/')}/{parent}"
        for attempt in range(_ATTEMPTS):
            try:
                make_parents(base)
                if self.kind == "v2":
                    for depth in range(parent.count("/") + 2):
                        hand_down("/".join([mount.rstrip("/"), *parent.split("/")[:depth]]))
                self._mkdir(f"{base}/{name}")
                break
            except FileNotFoundError:  # a step that ended just now took the parents along that it left empty
                if attempt == _ATTEMPTS - 1:
                    raise
        return f"{base}/{name}"


_MARK = "trusted.pybuild"  # an xattr on parents that we made for --cgroup-parent, so that we remove them again


def make_parents(path: str) -> None:
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory)
            os.setxattr(directory, _MARK, b"1")
        except FileExistsError:
            pass


def remove_parents(path: str) -> None:
    """Remove `path` and what is above it, as far as we made it and it is empty."""
    try:
        while os.getxattr(path, _MARK):
            os.rmdir(path)
            path = os.path.dirname(path)
    except OSError:
        pass


def usable_base(own: str, mount: str) -> str:
    """The nearest v2 group from `own` upwards whose children have the memory and pids controllers.

    A group that holds processes cannot hand out controllers (the "no internal processes" rule, cgroups(7)), so the
    engine's own group seldom can. Where none can, its own: limits then fail with a reason, devices still work.
    """
    path = own
    while not hand_down(path):
        if path.rstrip("/") == mount.rstrip("/"):
            return own
        path = os.path.dirname(path)
    return path


def hand_down(group: str) -> bool:
    """Let the children of `group` have controllers; False when they cannot have memory and pids."""
    control = group.rstrip("/") + "/cgroup.subtree_control"
    try:
        enabled = set(read(control).split())
        for wanted in ("+cpu", "+memory +pids"):  # cpu apart: with real-time groups it is refused
            if not {word[1:] for word in wanted.split()} <= enabled:
                _try_to_write(control, wanted)
        return {"memory", "pids"} <= set(read(control).replace("+", "").split())
    except FileNotFoundError:
        return False


def _try_to_write(path: str, text: str) -> None:
    try:
        write(path, text)
    except OSError:
        pass


def detect(mountinfo: str, own: str) -> Layout:
    """From the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    mine: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        mine.update(dict.fromkeys(controllers.split(","), path))
    v1: dict[str, tuple[str, str]] = {}
    v2 = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        fstype, _, options = right.split(" ")[:3]
        if fstype == "cgroup2" and "" in mine:
            v2 = (mount, _within(mount, root, mine[""]))
        elif fstype == "cgroup":
            for controller in options.split(","):
                if controller in mine:
                    v1.setdefault(controller, (mount, _within(mount, root, mine[controller])))
    return Layout(v1, v2)


def _within(mount: str, root: str, path: str) -> str:
    """Where the group `path` is, in a hierarchy of which `root` is mounted on `mount`."""
    if path != root and not path.startswith(root.rstrip("/") + "/"):
        return mount  # a group outside what is mounted, as with a foreign cgroup namespace
    return (mount.rstrip("/") + "/" + path[len(root.rstrip("/")) :].lstrip("/")).rstrip("/")
