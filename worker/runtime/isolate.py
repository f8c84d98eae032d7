"""The engine's own precautions, taken before its first thread: a private view of the mounts, a read-only Python.

Only commands that open an engine do this, and only root can.
"""

from __future__ import annotations

import os
from functools import cache

from buildengine.errors import HostError
from worker.runtime import syscalls


@cache
def private_mounts() -> None:
    """Give this process a mount namespace of its own, so that whatever is killed, no mount is left on the host.

    Recursively *slave*, not private: what the host mounts later is still seen here. Call it before any thread
    starts: unshare(2) moves the calling thread only. That is also why it is done once: a second namespace would be
    this thread's alone, and the threads that have started since would mount into the first.
    """
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        raise HostError(
            f"cannot make a mount namespace: {error.strerror}",
            hint="pybuild needs root (CAP_SYS_ADMIN) to build; in a container, run it privileged",
        ) from error


def readonly_program(path: str) -> int:
    """A descriptor of the program `path` through a read-only mount that is attached nowhere.

    Exec'ed through it, a process has a /proc/self/exe that nobody can open for writing, whatever an image makes of
    it (`#!/proc/self/exe`, CVE-2019-5736's class).
    """
    try:
        fd = syscalls.clone_mount(syscalls.AT_FDCWD, os.path.realpath(path))
        syscalls.restrict_mount(fd, syscalls.ATTR_RDONLY)
    except OSError as error:
        raise HostError(
            f"cannot mount {path} read-only: {error.strerror}",
            hint="pybuild needs root (CAP_SYS_ADMIN) and Linux 5.15 or later to run steps",
        ) from error
    return fd
