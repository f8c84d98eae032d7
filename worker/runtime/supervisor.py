"""The process that stands beside one step, outside its namespaces, from before the request until all is gone.

It makes the control group and PID 1 ahead of time, passes the request on, then waits for three things at once:
PID 1's end, PID 1's messages, and the engine's socket: for orders about a step that somebody talks to (a signal, one
more process), and for its end, on which it kills. exec of a set-id program clears a parent-death signal; nothing clears
this. The socket to the engine is its whole life: who holds the other end holds the step.
"""

from __future__ import annotations

import errno
import os
import select

from buildengine.tracepoints import reach
from worker.runtime import cgroups, init, joining, messages, sweep, syscalls, targets, usernamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, NoReturn

    from worker.runtime.host import Host

_SIGKILL = 9
_MSG_DONTWAIT = 0x40
# Of a fork once PID 1 ends (pid_namespaces(7)), and of the process that it took along just after.
_OF_THE_END = (errno.ENOMEM, errno.ESRCH)
_ENDED = {"fault": "user", "message": "the container has ended: no process can join it"}


def supervise(engine: _socket.socket, name: str, host: Host) -> NoReturn:
    """One step, or none if the engine goes away first. Ends the process."""
    syscalls.set_process_name(b"pybuild-step")
    supervisor = Supervisor(engine, name, host)
    try:
        supervisor.prepare()
        supervisor.serve()
    except messages.Lost:
        pass
    except BaseException as error:
        supervisor.answer({"failure": init.failure("supervising the step", error)})
    os._exit(0 if supervisor.clean() else 1)  # then the launcher tries once more


class Joined:
    """A process that joined the step; `number` is the engine's name for it."""

    def __init__(self, number: int, pid: int, pidfd: int, channel: _socket.socket) -> None:
        self.number = number
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.said: dict[str, Any] = {}


def _limit_if_possible(group: cgroups.Group, memory: int, cpus: float, pids: int) -> None:
    for limits in ((memory, 0, 0), (0, cpus, 0), (0, 0, pids)):
        try:
            group.limit(*limits)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise


def _received(channel: _socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A message that is there; None when there is none, or will be none."""
    try:
        return messages.receive(channel, _MSG_DONTWAIT)
    except (messages.Lost, BlockingIOError):
        return None


class Supervisor:
    def __init__(self, engine: _socket.socket, name: str, host: Host) -> None:
        self._engine = engine
        self._name = name
        self._host = host
        self._group: cgroups.Group | None = None
        self._parent = ""
        self._pid = 0
        self._pidfd = -1
        self._channel: _socket.socket
        self._stubs: tuple[list[targets.Stub], int] | None = None
        self._said: dict[str, Any] = {}
        self._attended = False  # the engine wants to hear of more than the end
        self._joined: dict[int, Joined] = {}  # by pidfd, and by the descriptor of its channel
        self._poll = select.poll()
        self._registration = -1  # the mount of the step's own binfmt_misc: closed, its emulator is forgotten

    def prepare(self) -> None:
        """All that does not depend on the request."""
        self._group = self._host.cgroups.make(self._name)
        reach("supervisor.grouped")
        syscalls.unshare(syscalls.CLONE_NEWPID)
        self._channel, theirs = messages.pair()
        self._pid = os.fork()
        if self._pid == 0:
            self._engine.close()
            self._channel.close()
            init.run(theirs, self._host, self._group.views())
        theirs.close()
        self._pidfd = os.pidfd_open(self._pid)
        self._group.attach(self._pid)
        reach("supervisor.ready")
        messages.rehearse()

    def serve(self) -> None:
        given, received = messages.receive(self._engine)
        self._attended = given["attended"]
        count = 4 if given["stdin"] else 3
        fds = received[:count]  # the request and the pipes; the rest are locks, which end with this process
        request = messages.open_envelope(fds[0])
        if request["emulation"]:
            self._registration, *namespaces = usernamespace.make(request["emulation"])
            fds += namespaces
        group = self._limited(request["cgroup"])
        setting = {"nodev": not group.devices_enforced, "cgroups": group.views(), "stdin": given["stdin"]}
        try:
            messages.send(self._channel, setting, tuple(fds))
        except messages.Lost:
            pass  # PID 1 could not even get ready: it has left word why
        for fd in fds:
            os.close(fd)
        del request
        reach("supervisor.passed")
        self._wait()
        reach("supervisor.ended")
        self.answer(self._outcome(group))

    def _limited(self, wanted: dict[str, Any]) -> cgroups.Group:
        assert self._group is not None
        if wanted["parent"]:
            self._parent = wanted["parent"]
            self._group = self._host.cgroups.make(self._name, self._parent)
            self._group.attach(self._pid)  # the group that it leaves goes at the end: PID 1 may still look at it
        limits = (wanted["memory"], wanted["cpus"], wanted["pids"])
        if wanted["needed"]:
            self._group.limit(*limits)
        else:
            _limit_if_possible(self._group, *limits)
        self._group.allow(wanted["devices"])
        return self._group

    def _wait(self) -> None:
        """Until PID 1 has ended, and with it every process of its namespace: those that joined are reaped before."""
        poll = self._poll
        for fd in (self._pidfd, self._engine.fileno(), self._channel.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._engine.fileno() in ready and not self._obey():
                syscalls.pidfd_kill(self._pidfd, _SIGKILL)
                poll.unregister(self._engine.fileno())
            if self._channel.fileno() in ready and not self._listen():
                poll.unregister(self._channel.fileno())
            for fd in ready:
                if fd in self._joined:
                    self._bury(self._joined[fd])
            if self._pidfd in ready:
                while self._listen():
                    pass
                return

    def _obey(self) -> bool:
        """Take one order of the engine; False when it wants the step to end."""
        try:
            order, fds = messages.receive(self._engine, _MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except messages.Lost:
            return False
        number = order["process"]
        if "signal" in order:
            known = {joined.number: joined.pidfd for joined in self._joined.values()} | {0: self._pidfd}
            if number in known:
                syscalls.pidfd_kill(known[number], order["signal"])
        else:
            self._join(number, fds, stdin=order["stdin"])
        return True

    def _join(self, number: int, fds: list[int], *, stdin: bool) -> None:
        """Start one more process of the step. That there can be none is its failure, not that of the others."""
        try:
            joined = self._forked(number)
        except OSError as error:
            self._refuse(number, error)
        else:
            self._begin(joined, fds, stdin=stdin)
        for fd in fds:
            os.close(fd)

    def _forked(self, number: int) -> Joined:
        channel, theirs = messages.pair()
        pid = os.fork()
        if pid == 0:
            self._engine.close()
            channel.close()
            joining.run(theirs, self._host, self._pidfd)
        theirs.close()
        joined = Joined(number, pid, os.pidfd_open(pid), channel)
        for fd in (joined.pidfd, channel.fileno()):
            self._poll.register(fd, select.POLLIN)
            self._joined[fd] = joined
        return joined

    def _begin(self, joined: Joined, fds: list[int], *, stdin: bool) -> None:
        assert self._group is not None
        setting = {"stdin": stdin, "nodev": not self._group.devices_enforced, "user": self._registration >= 0}
        try:
            self._group.attach(joined.pid)
            messages.send(joined.channel, setting, tuple(fds))
        except messages.Lost:
            pass  # it has left word why
        except OSError as error:
            joined.said["failure"] = self._refuse(joined.number, error)
            syscalls.pidfd_kill(joined.pidfd, _SIGKILL)

    def _refuse(self, number: int, error: OSError) -> dict[str, str]:
        """Tell why a process could not join."""
        why = _ENDED if error.errno in _OF_THE_END else init.failure("joining the container", error)
        self.answer({"process": number, "failure": why})
        return why

    def _bury(self, joined: Joined) -> None:
        """Take what a process that joined has to say; once it has ended, tell how."""
        said = joined.said
        while (message := _received(joined.channel)) is not None:
            told, fds = message
            said.update(told)
            self._tell(joined.number, told, fds)
        if not messages.is_readable(joined.pidfd):
            return
        for fd in (joined.pidfd, joined.channel.fileno()):
            self._poll.unregister(fd)
            del self._joined[fd]
        _, status, usage = os.wait4(joined.pid, 0)
        os.close(joined.pidfd)
        joined.channel.close()
        if "failure" not in said:
            ended = {"status": status, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss << 10}
            self.answer({"process": joined.number, "oom": False} | ended)

    def _tell(self, number: int, told: dict[str, Any], fds: list[int]) -> None:
        """Pass on what a process says to an engine that attends to the step."""
        if self._attended:
            self.answer({"process": number} | told, tuple(fds))
        for fd in fds:
            os.close(fd)

    def _listen(self) -> bool:
        """Take one message of PID 1; False when there is none and will be none."""
        message = _received(self._channel)
        if message is None:
            return False
        told, fds = message
        if "stubs" in told:
            self._stubs = (told["stubs"], fds[0])
        elif "failure" not in told and "exit" not in told:
            self._tell(0, told, fds)
        self._said.update(told)
        return True

    def _outcome(self, group: cgroups.Group) -> dict[str, Any]:
        _, status, usage = os.wait4(self._pid, 0)
        self._pid = 0
        if self._registration >= 0:
            os.close(self._registration)
        if self._stubs:
            targets.remove(self._stubs[1], self._stubs[0])
            os.close(self._stubs[1])  # the last hold on the root: its upper directory is quiet from here on
        if "failure" in self._said:
            return {"failure": self._said["failure"]}
        cpu = usage.ru_utime + usage.ru_stime
        if "exit" in self._said:
            status, cpu = self._said["exit"]
        oom = status != 0 and group.oom_kills() > 0
        if "started" not in self._said:
            why = "out of memory" if oom else f"wait status {status}"
            return {"failure": {"fault": "host", "message": f"the step's first process died while it set up: {why}"}}
        peak = group.peak_memory() or usage.ru_maxrss << 10
        return {"status": status, "cpu": cpu, "peak": peak, "oom": oom}

    def answer(self, report: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        messages.tell(self._engine, report, fds)

    def clean(self) -> bool:
        """Whatever happened: no process of the step, no control group. False: a group is left."""
        if self._pid:
            syscalls.pidfd_kill(self._pidfd, _SIGKILL)
            os.waitpid(self._pid, 0)
        # every hierarchy: an OCI runtime makes groups in all of them
        gone = [sweep.remove(f"{own}/{self._name}") for own in self._host.cgroups.own]
        for directory in self._group.directories() if self._group else []:
            gone.append(sweep.remove(directory))
            if self._parent:
                cgroups.remove_parents(os.path.dirname(directory))
        return all(gone)
