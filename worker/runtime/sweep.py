"""Removing control groups: of a step that has ended, and of engines that were killed with all their helpers.

A group is named `pybuild-<pid namespace>-<engine's pid>-<its start time>-<number>`, so anyone can tell whether
its owner lives. Standard library only; runs in the launcher, where nobody waits for it.
"""

from __future__ import annotations

import errno
import os
import time

from worker.runtime import cgroups, controlfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "pybuild-"
_SIGKILL = 9
_DEPTH, _MOST = 8, 5000  # of a walk through a hierarchy that others fill
_ATTEMPTS, _PAUSE = 200, 0.01  # a killed process leaves its group when the kernel has finished with it


def owner(pid: int) -> str:
    """The prefix of the names of the groups that process `pid` owns, in the pid namespace that we share."""
    return f"{_PREFIX}{os.stat('/proc/self/ns/pid').st_ino}-{pid}-{start_time(pid)}-"


def start_time(pid: int) -> int:
    """In clock ticks since boot, proc(5) field 22; 0 when there is no such process."""
    try:
        text = controlfiles.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def orphaned(name: str) -> bool:
    """Whether this is the group of an engine of our pid namespace that no longer lives."""
    parts = name.split("-")
    if len(parts) != 5 or parts[0] + "-" != _PREFIX or not all(part.isdecimal() for part in parts[1:]):
        return False
    namespace, pid, started = (int(part) for part in parts[1:4])
    return namespace == os.stat("/proc/self/ns/pid").st_ino and start_time(pid) != started


def sweep(layout: cgroups.Layout, wanted: Callable[[str], bool] = orphaned) -> None:
    """Kill what lives in the groups with a `wanted` name, wherever they are, and remove them.

    What does not die in time is left for the next one.
    """
    seen = 0
    for mount in layout.mount_points:
        for directory, names, _ in os.walk(mount):
            seen += len(names)
            for name in [name for name in names if wanted(name)]:
                names.remove(name)
                remove(f"{directory}/{name}")
                cgroups.remove_parents(directory)
            if directory.count("/") - mount.count("/") >= _DEPTH or seen > _MOST:
                names.clear()


def remove(directory: str) -> bool:
    """Remove a group and those below it; whatever still runs there is killed. A missing one is no error.

    False: something in it does not die, as what waits for a disk or is frozen.
    """
    if not os.path.basename(directory).startswith(_PREFIX):
        raise ValueError(f"{directory} is no group of ours")  # a slip here would kill the engine's own session
    for attempt in range(_ATTEMPTS):
        try:
            for path, _, _ in os.walk(directory, topdown=False, onerror=_raise):
                os.rmdir(path)
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
        _kill(directory)
        if attempt:
            time.sleep(_PAUSE)
    return False


def _raise(error: OSError) -> None:
    raise error


def _kill(directory: str) -> None:
    for path, _, _ in os.walk(directory):
        try:
            for pid in controlfiles.read(path + "/cgroup.procs").split():
                if pid != "0":  # 0: in a pid namespace that we cannot see
                    os.kill(int(pid), _SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
