"""PID 1 of a step that runs through an OCI runtime: runc or crun, inside our own pid and mount namespaces.

So it dies like the built-in backend: when this process ends, the kernel kills the runtime and its container, and
the tmpfs with the bundle (config.json holds secrets) and the runtime's state is gone. Standard library only.
"""

from __future__ import annotations

import os

from worker.runtime import messages, syscalls
from worker.runtime.assembly import SCRATCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, NoReturn

_HYBRID = "/sys/fs/cgroup/unified"


def own_proc() -> None:
    """The host's /proc shows another pid namespace; the runtime looks itself up in it."""
    proc = syscalls.new_filesystem("proc", [], syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC)
    target = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.attach(proc, target)
    os.close(target)
    os.close(proc)


def run(channel: _socket.socket, oci: dict[str, Any], streams: list[int], *, guarded: bool) -> NoReturn:
    """Run the container to its end and send {"exit": (wait status, CPU seconds)}, or a failure of the runtime.

    `guarded`: the control group that we are in keeps it from the host's devices. Otherwise the runtime has to.
    """
    bundle = f"{SCRATCH}/bundle"
    os.mkdir(bundle, 0o700)
    with open(f"{bundle}/config.json", "wb") as file:
        file.write(oci["config"])
    if oci["hide_unified"]:
        _hide_unified()
    runtime = os.fork()
    if runtime == 0:
        options = oci["options_in_our_group"] if guarded else []
        _become_runtime(oci["program"], options, bundle, streams)
    for fd in streams:
        os.close(fd)
    ended: dict[int, tuple[int, float]] = {}  # everything that dies in here is our child in the end
    status, _ = _wait_for(runtime, ended)
    if status != 0:
        messages.send(channel, {"failure": {"fault": "oci", "message": _read(f"{bundle}/log")[-60_000:]}})
        os._exit(1)
    messages.send(channel, {"started": True, "exit": _wait_for(int(_read(f"{bundle}/pid")), ended)})
    os._exit(0)


def _wait_for(wanted: int, ended: dict[int, tuple[int, float]]) -> tuple[int, float]:
    """(wait status, CPU seconds) of `wanted`, which may have ended before."""
    while wanted not in ended:
        pid, status, usage = os.wait4(-1, 0)
        ended[pid] = (status, usage.ru_utime + usage.ru_stime)
    return ended[wanted]


def _hide_unified() -> None:
    """crun refuses a v1 host whose v2 hierarchy has a controller left; in here there is none."""
    try:
        syscalls.unmount(_HYBRID)
    except OSError:
        pass


def _become_runtime(program: str, options: list[str], bundle: str, streams: list[int]) -> NoReturn:
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        syscalls.close_range(3, 0xFFFFFFFF)
        syscalls.default_signals(13, 25)
        log = ["--log", f"{bundle}/log", "--log-format", "json"]
        # runc would join the keyring of the container's name, which every step has: the one that is ours alone stays
        run = ["run", "--no-new-keyring", "--detach", "--bundle", bundle, "--pid-file", f"{bundle}/pid", "step"]
        argv = [program, "--root", f"{SCRATCH}/state", *log, *options, *run]
        os.execve(program, argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    finally:
        os._exit(127)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
