"""From root of a freshly assembled tree to the user's process: limits, filters, user, capabilities, exec.

Runs in PID 1 of a step after pivot_root, when every path is the image's: nothing here may import, look up a
codec, a user or a group, or print a traceback. The order is the point; each function says what it needs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat

from worker.runtime import capabilities, syscalls
from worker.runtime.targets import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIGPIPE, _SIGXFSZ = 13, 25
_TIOCSPTLCK, _TIOCGPTPEER, _TIOCSCTTY = 0x40045431, 0x5441, 0x540E  # include/uapi/asm-generic/ioctls.h
_SIGKILL = 9
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def set_limits(rlimits: list[tuple[int, int, int]]) -> None:
    """Needs CAP_SYS_RESOURCE to raise a hard limit."""
    for number, soft, hard in rlimits:
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:  # what setrlimit's EPERM and EINVAL become
            raise OSError(errno.EPERM, f"{error}: the engine has {resource.getrlimit(number)}", "ulimit") from None


def separate(process: dict[str, Any], *, landlock_abi: int, alone: bool = True) -> None:
    """From abstract sockets and processes of others. Needs CAP_SYS_ADMIN, as does `filter_calls`: no_new_privs stays
    off, since set-uid programs work in a build. Who is not `alone` may signal the other processes of its container,
    and its pid namespace keeps all else from it."""
    if not process["insecure"] and landlock_abi >= 6:
        syscalls.landlock_scope(signals=alone)


def enter_user_namespace(user: int, process: dict[str, Any]) -> None:
    """From here on there is every capability, but over nothing that was made outside: all that needs the host's
    privileges has been done. An insecure step may mount, so it gets its mounts and its host name as its own."""
    syscalls.setns(user, syscalls.CLONE_NEWUSER)
    if process["insecure"]:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)


def filter_calls(process: dict[str, Any]) -> None:
    if not process["insecure"]:
        syscalls.install_seccomp(process["seccomp"])


def take_streams(streams: list[int], uid: int) -> None:
    """Descriptors 0 to 2. The pipes become the user's, so that /dev/stdout can be opened (as runc does)."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for pipe in (0, 1, 2):
        if not stat.S_ISCHR(os.fstat(pipe).st_mode) or os.isatty(pipe):  # /dev/null stays root's
            os.fchown(pipe, uid, -1)


def open_terminal() -> tuple[int, int]:
    """A terminal of the step's own /dev/pts, as (the engine's end, the process's end), and ours to be controlled by."""
    engine = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.fstat(engine).st_rdev != os.makedev(5, 2):  # ptmx, Documentation/admin-guide/devices.txt
        raise Refused("/dev/pts of the container has no terminals")
    fcntl.ioctl(engine, _TIOCSPTLCK, b"\0\0\0\0")
    process: int = fcntl.ioctl(engine, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(process, _TIOCSCTTY, 0)
    return engine, process


def become(process: dict[str, Any], *, bounding: int, mknod: bool) -> None:
    """Change user and give up capabilities. Only bounding, permitted and effective are set: an inheritable set
    would let a file with inheritable capabilities regain them (CVE-2022-24769)."""
    insecure = process["insecure"]
    kept = bounding & (capabilities.ALL if insecure else 0 if process["unprivileged"] else capabilities.DEFAULT)
    if not mknod and not insecure:
        kept &= ~capabilities.MKNOD
    number = 0
    while (held := syscalls.bounded(number)) is not None:  # all, also what a user namespace brought
        if held and not kept >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        number += 1
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups(process["groups"])
    os.setresgid(process["gid"], process["gid"], process["gid"])
    os.setresuid(process["uid"], process["uid"], process["uid"])
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    syscalls.set_capabilities(effective=kept, permitted=kept, inheritable=kept if insecure else 0)
    if process["unprivileged"]:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if insecure:  # a user other than root keeps them too, as with BuildKit
        for number in range(kept.bit_length()):
            if kept >> number & 1:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def die_with_parent() -> None:
    """Last of all credential changes: each of them clears the signal (kernel/cred.c, commit_creds)."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)


def enter_workdir(path: str) -> None:
    """As the user. No descriptor of the host is open any more: /proc/self/fd/N leads nowhere (CVE-2024-21626)."""
    try:
        os.chdir(path)
    except OSError as error:
        raise Refused(f"working directory {path}: {error.strerror}") from None


def execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """execve of argv[0], looked up in the environment's PATH. Raises Refused with what a shell would have said."""
    os.umask(0o022)
    syscalls.default_signals(_SIGPIPE, _SIGXFSZ)
    name = argv[0]
    denied = False
    for path in _candidates(name, environment.get("PATH", _DEFAULT_PATH)):
        try:
            os.execve(path, argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            if _is_file(path):
                raise Refused(f'exec: "{path}": its interpreter or dynamic loader is not in the image') from None
        except PermissionError:
            denied = True
        except OSError as error:
            raise Refused(f'exec: "{path}": {_explain(error)}') from None
    if denied:
        raise Refused(f'exec: "{name}": permission denied')
    if "/" in name:
        raise Refused(f'exec: "{name}": no such file or directory')
    raise Refused(f'exec: "{name}": executable file not found in $PATH')


def _candidates(name: str, path: str) -> list[str]:
    if "/" in name or not name:
        return [name]
    return [f"{folder}/{name}" for folder in path.split(":") if folder.startswith("/")]


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _explain(error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return "exec format error: not a program, or one for another kind of processor"
    if error.errno == errno.E2BIG:
        return "the arguments and the environment are too long"
    return str(error.strerror).lower()
