"""System calls that Python's standard library lacks, by their names in the manual (section 2)."""

import ctypes
import os
import sys
from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x0002_0000, 0x0400_0000, 0x1000_0000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x0800_0000, 0x2000_0000, 0x4000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x4_0000
MNT_DETACH = 2

sys.stdout.reconfigure(line_buffering=True)  # a child would print again what its parent has kept back

_libc = ctypes.CDLL(None, use_errno=True)
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # glibc has no function for it


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones; for pids only the children that are forked from now on do."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    _checked(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    _checked(_libc.umount2(target.encode(), flags), f"umount {target}")


def pivot_root(new: str, put_old: str) -> None:
    """`new` becomes the root directory of this mount namespace; what was the root is mounted at `put_old`."""
    _checked(_libc.syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), put_old.encode()), "pivot_root")


def _checked(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def become_root() -> None:
    """What step 2 explains: a user namespace in which whoever runs this is root, over what is new in here."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    for file, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as control:
            control.write(line)


def in_a_child(work: Callable[[], object]) -> None:
    """Do `work` in a child process and wait until it has ended. If it failed, so does this."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the child failed")
