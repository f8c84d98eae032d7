"""PID 1 of a step: waits for its request, builds the root, becomes the user's process.

Forked ahead of time by the supervisor, into a new pid namespace. Everything it will ever need is imported by the
launcher, which then emptied `sys.path`: after pivot_root an import could come from the image. What goes wrong
travels to the supervisor as data, so it is never taken for an exit code of the user's process.
"""

from __future__ import annotations

import fcntl
import os

from worker.runtime import actions, confine, messages, ocirun, syscalls, targets, usernamespace, usual
from worker.runtime.assembly import Assembly

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, NoReturn

    from worker.runtime.host import Host

_CHANNEL, _USER = 3, 4  # the descriptors beside the streams that are open at exec, close-on-exec


def run(channel: _socket.socket, host: Host, cgroups: list[tuple[str, str]]) -> NoReturn:
    """Never returns: ends as the user's process, or with a failure on `channel`.

    `cgroups`: (name below /sys/fs/cgroup, directory) of this step, unless the request is about others.
    """
    during = ["getting ready"]
    try:
        built = _prepare(host, cgroups)
        setting, fds = messages.receive(channel)
        _step(channel, host, built, setting, fds, during)
    except messages.Lost:
        pass
    except BaseException as error:
        report(channel, during[0], error)
    os._exit(1)


def _prepare(host: Host, cgroups: list[tuple[str, str]]) -> Assembly:
    """All that does not depend on the request."""
    confine.die_with_parent()
    os.setsid()
    os.umask(0o022)
    syscalls.join_new_session_keyring()
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
    if host.oci:
        ocirun.own_proc()
    built = Assembly(host.overlay, cgroups, mknod=host.mknod)
    built.prepare(usual.makings(cgroups, oci=host.oci, mknod=host.mknod))
    messages.rehearse()
    return built


def report(channel: _socket.socket, during: str, error: BaseException) -> None:
    messages.tell(channel, {"failure": failure(during, error)})


def failure(during: str, error: BaseException) -> dict[str, str]:
    """An exception as data: whose fault, and one sentence."""
    if isinstance(error, targets.Refused):
        return {"fault": "user", "message": str(error)} | ({"hint": error.hint} if error.hint else {})
    if isinstance(error, usernamespace.Refused):
        return {"fault": "emulation", "message": str(error)}
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return {"fault": "host", "message": f"{during}: {what}{error.strerror}"}
    return {"fault": "internal", "message": f"{during}: {type(error).__name__}: {error}", "trace": _trace(error)}


def _trace(error: BaseException) -> str:
    """Without `traceback`, which would open source files by path: the image's."""
    frames = []
    at = error.__traceback__
    while at is not None:
        frames.append(f"{at.tb_frame.f_code.co_name}:{at.tb_lineno}")
        at = at.tb_next
    return " ".join(frames)


def _step(
    channel: _socket.socket, host: Host, built: Assembly, setting: dict[str, Any], fds: list[int], during: list[str]
) -> NoReturn:
    given = [fds.pop(1)] if setting["stdin"] else []
    envelope, pipes, namespaces = fds[0], fds[1:3], fds[3:]
    request = messages.open_envelope(envelope)
    os.close(envelope)
    built.cgroups = setting["cgroups"]
    built.network = namespaces[1] if len(namespaces) > 1 else -1
    if built.cgroups and not host.oci:  # an OCI runtime makes its own, and finds its place by ours
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    if setting["nodev"]:
        built.attributes = syscalls.ATTR_NODEV
    for kind, description, fields in request["plan"]:
        during[0] = description
        actions.perform(built, kind, fields)
    during[0] = "entering the new root"
    messages.send(channel, {"stubs": built.stubs.made}, (built.bare,))
    os.close(built.bare)
    streams = [*(given or [built.null]), *pipes]
    if host.oci:
        ocirun.run(channel, request["oci"], streams, guarded=not setting["nodev"])
    _pivot(built.root)
    during[0] = "confining the process"
    process = request["process"]
    take_streams(channel, process, streams)
    channel, user = close_all_but(channel, namespaces)
    become(channel, host, process, user, mknod=not setting["nodev"])


def take_streams(channel: _socket.socket, process: dict[str, Any], streams: list[int]) -> None:
    """Those given, or a terminal, whose other end goes to the engine."""
    if process["terminal"]:
        engine, terminal = confine.open_terminal()
        messages.send(channel, {"terminal": True}, (engine,))
        streams = [terminal] * 3
    confine.take_streams(streams, process["uid"])


def become(
    channel: _socket.socket,
    host: Host,
    process: dict[str, Any],
    user: int | None,
    *,
    mknod: bool,
    alone: bool = True,
) -> NoReturn:
    """The user's process. `user` is the user namespace that it enters; who is not `alone` joins a container."""
    try:
        confine.separate(process, landlock_abi=host.landlock_abi, alone=alone)
        confine.set_limits(process["rlimits"])  # after what opens files: the user may have allowed none
        if user is not None:
            confine.enter_user_namespace(user, process)
        confine.filter_calls(process)
        confine.become(process, bounding=host.bounding, mknod=mknod)
        confine.die_with_parent()
        messages.send(channel, {"started": True})  # Lost: the supervisor had died before the line above
        confine.enter_workdir(process["cwd"])
        confine.execute(process["argv"], process["env"])
    except messages.Lost:
        os._exit(1)
    except BaseException as error:  # `run` has closed descriptors by another name than ours
        report(channel, "starting the process", error)
        os._exit(1)


def _pivot(root: int) -> None:
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    syscalls.pivot_root(".", ".")  # the old root now lies over the new one, pivot_root(2)
    os.fchdir(old)
    syscalls.unmount(".")
    os.chdir("/")


def close_all_but(channel: _socket.socket, namespaces: list[int]) -> tuple[_socket.socket, int | None]:
    """The channel and the user namespace, if there is one for this step."""
    fds = [channel.detach(), *namespaces[:1]]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _USER + 1) for fd in fds]  # none of them in another's place
    for fd, place in zip(high, (_CHANNEL, _USER), strict=False):
        os.dup2(fd, place, inheritable=False)
    syscalls.close_range(_CHANNEL + len(fds), 0xFFFFFFFF)
    return messages.adopt(_CHANNEL), _USER if namespaces else None
