"""The launcher: a small single-threaded process that forks one supervisor for each order of the engine.

exec'ed once by the engine, as `python -I -S`, with a SOCK_SEQPACKET socket as descriptor 0. An order is
{"name": ...} with one descriptor: the socket on which the new supervisor will serve the engine. A fork of this
process costs 0.5 ms; an exec of Python would cost each step 17. What it imports here is all that any step will
have: afterwards nothing can be imported any more, so nothing can come from an image.
"""

from __future__ import annotations

import gc
import os
import select
import sys

from buildengine.tracepoints import arm, reach
from worker.runtime import init, messages, supervisor, sweep, syscalls
from worker.runtime.host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

_SIGKILL = 9


def main(arguments: list[str]) -> None:
    """`arguments`: the kind of runtime, the kernel features to do without, and trace points as `name:count`."""
    gc.disable()
    gc.freeze()  # a collection in a child would touch, and so copy, every page of the heap
    for importer in (sys.path, sys.meta_path, sys.path_hooks):
        importer.clear()
    syscalls.close_range(3, 0xFFFFFFFF)  # the program's own file, which exec was given by descriptor
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # no process of a step may look into a process of ours
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.set_process_name(b"pybuild-launch")
    syscalls.reset_signals()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    _arm(arguments)
    host = Host(frozenset(arguments[1:]), oci=arguments[0] != "builtin")
    Launcher(messages.adopt(0), host).run()
    os._exit(0)  # to take the interpreter apart takes 3 ms, and the engine waits


def _arm(arguments: list[str]) -> None:
    for argument in arguments:
        name, colon, count = argument.partition(":")
        if colon:
            arm(name, int(count))


class Launcher:
    def __init__(self, engine: _socket.socket, host: Host) -> None:
        self._engine = engine
        self._host = host
        self._children: dict[int, tuple[int, str]] = {}  # pidfd -> (pid, name of its step)
        self._poll = select.poll()

    def run(self) -> None:
        """Until the engine has gone and every supervisor has finished."""
        self._fork("", None)
        self._poll.register(self._engine.fileno(), select.POLLIN)
        serving = True
        while serving or self._children:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(fd)
                elif not self._serve():
                    self._poll.unregister(self._engine.fileno())
                    serving = False

    def _serve(self) -> bool:
        try:
            order, fds = messages.receive(self._engine)
        except messages.Lost:
            return False
        for channel in map(messages.adopt, fds):  # none where we may open no more files: the engine sees its end
            try:
                self._fork(order["name"], channel)
            except OSError as error:  # of this step, not of those that run and those to come
                messages.tell(channel, {"failure": init.failure("starting a process for the step", error)})
            channel.close()
        reach("launcher.forked")
        return True

    def _fork(self, name: str, channel: _socket.socket | None) -> None:
        """A supervisor for `channel`; without one, a process that removes what dead engines left behind."""
        pid = os.fork()
        if pid == 0:
            self._engine.close()
            if channel is not None:
                supervisor.supervise(channel, name, self._host)
            try:
                sweep.sweep(self._host.cgroups)
            finally:
                os._exit(0)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, name)
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, name = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        if status != 0 and name:  # a supervisor was killed, and its PID 1 is our child now; or it has left a group
            self._kill_orphans()
            sweep.sweep(self._host.cgroups, name.__eq__)

    def _kill_orphans(self) -> None:
        known = {pid for pid, _ in self._children.values()}
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            orphans = {int(pid) for pid in file.read().split()} - known
        for pid in orphans:
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
