"""A user namespace for one emulated step, in which its emulator is registered with binfmt_misc.

All ids are mapped to themselves, so owners of files are what they would be without it. A helper process makes the
namespace, since nobody can register from outside; the supervisor, which has the privilege, writes the id maps. What
comes out are descriptors: nothing of it has a name, and all of it ends with them. Standard library only.
"""

from __future__ import annotations

import os
import resource

from worker.runtime import binfmt, controlfiles, messages, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, NoReturn

_IDENTITY = "0 0 4294967295"
# A namespace has its maker's limits, and its processes count against both (kernel/ucount.c).
_COUNTED = (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_SIGPENDING)


class Refused(Exception):
    """This kernel, or who configured it, does not let a step register an emulator; the message says where."""


def make(emulation: dict[str, Any]) -> list[int]:
    """`emulation`: name, magic, mask, program, network (make a network namespace too).

    Returns the mount of the registration, which is to be held as long as the step lives, the user namespace, and
    the network namespace if one was asked for.
    """
    ours, theirs = messages.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _serve(theirs, emulation)
    theirs.close()
    try:
        said, fds = messages.receive(ours)
        if "refused" not in said:
            for name in ("uid_map", "gid_map"):
                controlfiles.write(f"/proc/{pid}/{name}", _IDENTITY)
            messages.send(ours, {})
            said, fds = messages.receive(ours)
    except messages.Lost:
        raise Refused("the process that makes its user namespace was killed") from None
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}") from None
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if "refused" in said:
        raise Refused(said["refused"])
    return fds


def _serve(channel: _socket.socket, emulation: dict[str, Any]) -> NoReturn:
    try:
        messages.send(channel, {}, tuple(_enter(channel, emulation)))
    except messages.Lost:
        pass
    except BaseException as error:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError):
            what = f"{error.filename}: {error.strerror}"
        messages.tell(channel, {"refused": what})
    os._exit(0)


def _enter(channel: _socket.socket, emulation: dict[str, Any]) -> list[int]:
    # through a mount of its own that is read-only: no process of the step can write to its /proc/self/exe
    program = syscalls.clone_mount(syscalls.AT_FDCWD, emulation["program"])
    syscalls.restrict_mount(program, syscalls.ATTR_RDONLY)
    for limit in _COUNTED:
        _unlimit(limit)
    network = syscalls.CLONE_NEWNET if emulation["network"] else 0
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | network)
    messages.send(channel, {})
    messages.receive(channel)  # the ids are mapped
    instance = binfmt.mounted()
    binfmt.register(instance, emulation["name"], emulation["magic"], emulation["mask"], f"/proc/self/fd/{program}")
    kinds = ["user", "net"] if network else ["user"]
    return [instance, *(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds)]


def _unlimit(limit: int) -> None:
    try:
        resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):  # the step has what the engine has
        pass
