"""The engine's side of running steps: `async with open_runtime() as runtime: await runtime.run(spec, ...)`.

One launcher per engine, one supervisor per step (`launcher.py`, `supervisor.py`), and always one supervisor
more than there are steps, so that the next step finds its control groups and namespaces made. The socket to a
supervisor is the step's life: closing it, or dying with it, kills the step.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import trio

from buildengine.errors import BuildError, HostError, InternalError
from buildengine.tracepoints import armed, reach
from buildengine.values import dataclass
from worker.runtime import bundle, failures, isolate, messages, request, sweep
from worker.runtime.spec import ProcessSpec
from worker.session import SecretBytes

if TYPE_CHECKING:
    from worker.runtime.container import Container

Kind = Literal["auto", "builtin", "runc", "crun"]
HAVE_CONTAINERS: frozenset[Kind] = frozenset({"auto", "builtin"})  # `Runtime.open_container`
Output = Callable[[int, bytes], None]  # (1 or 2, bytes)

_CHUNK = 256 << 10
_PIPE_SIZE = 256 << 10
_ORDERS = 16 << 20  # bytes of orders that may wait for the launcher, 768 each: steps begin faster than it forks
_SO_SNDBUFFORCE = 32  # socket(7); Python's socket does not name it
_GRACE = 60  # seconds that a killed step may take to be gone: only a hung file system needs any
_NOTHING: Mapping[str, str] = MappingProxyType({})
_numbers = itertools.count(1)  # of the supervisors of this process: two engines in it share its name
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from worker.runtime.launcher import main; main(sys.argv[1:])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a step's first process ended. `code` is 0 when `signal` is not. `peak_memory` in bytes."""

    code: int
    signal: int
    oom_killed: bool
    cpu_seconds: float
    peak_memory: int


class Runtime(Protocol):
    """Runs steps. `name` is for messages."""

    @property
    def name(self) -> str: ...

    def rest(self) -> None:
        """No step is near: what was made ready for the next one goes, while the caller does something else."""
        ...

    async def run(
        self,
        spec: ProcessSpec,
        *,
        secrets: Mapping[str, SecretBytes],
        on_output: Output,
        locks: Iterable[int] = (),
        stdin: int = -1,
        stdout: int = -1,
        is_last: bool = False,
    ) -> Exit:
        """Run one step to its end, when no process of it is left and its root is no longer mounted.

        `secrets` holds the bytes of each SecretFile by target and of each secret_env by name. `locks` are descriptors
        that the supervisor keeps until the step is gone, also when this process is killed. `stdin` and `stdout` are
        descriptors for the process's own, and are closed here; without them it reads nothing, and what it prints goes
        to `on_output`. `is_last`: for all that the caller knows no step follows, and none is made ready. An exit code
        is a result, not an error; UserError, HostError say why a step could not be started. A cancelled caller waits
        until everything is killed.
        """
        ...

    def open_container(self) -> AbstractAsyncContextManager[Container]:
        """A step that somebody talks to (`worker.runtime.container`). Raises HostError when this runtime has none."""
        ...


@asynccontextmanager
async def open_runtime(
    kind: Kind = "auto", *, environment: Mapping[str, str] = _NOTHING, lacking: Iterable[str] = ()
) -> AsyncIterator[Runtime]:
    """Start the launcher, and stop it with every step.

    Other threads do no harm: no Python code runs between fork and exec, and no parent-death signal hangs on us.
    `auto` is the built-in runtime. `environment` is the launcher's, should its Python need one to start
    (LD_LIBRARY_PATH); steps never see it. `lacking` names what to do without (`lowerdir+`, `detached`, `cgroups`,
    `landlock`, `mknod`): tests force fallbacks with it.
    """
    program = bundle.find(kind) if kind in ("runc", "crun") else None
    points = [f"{name}:{count}" for name, count in armed()]
    launcher = _Launcher([program.name if program else "builtin", *sorted(lacking), *points], environment)
    runtime = _Runtime(launcher, program)
    try:
        yield runtime
    finally:
        with trio.CancelScope(shield=True):
            runtime.rest()
            await launcher.close()


class _Launcher:
    """The launcher process and the socket on which it takes orders."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        # ours and every descriptor below are close-on-exec: no helper program of the engine keeps a step alive
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        try:
            self._orders.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _ORDERS)
        except PermissionError:  # without CAP_NET_ADMIN there is room for some 270: the next wait for a fork or two
            self._orders.setblocking(True)
        self._log = os.memfd_create("launcher-log", os.MFD_CLOEXEC)
        python = isolate.readonly_program(sys.executable)
        root = str(Path(__file__).parents[2])
        try:
            # fork and exec without Python code between them. argv[0] is where Python looks for its library.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, root, *arguments],
                executable=f"/proc/self/fd/{python}",
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env=environment,
                cwd="/",
                pass_fds=(python,),
                start_new_session=True,  # Ctrl-C is the engine's to handle
            )
        finally:
            os.close(python)
            theirs.close()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._owner = sweep.owner(os.getpid())

    def order(self) -> _Supervisor:
        """A supervisor that is about to be forked. What is wrong with it shows when it is used."""
        name = f"{self._owner}{next(_numbers)}"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            messages.send(self._orders, {"name": name}, (theirs.fileno(),))
        except (messages.Lost, BlockingIOError):
            pass
        finally:
            theirs.close()
        return _Supervisor(ours, name)

    def log(self) -> str:
        """What the launcher and its children had to say; empty unless there is a bug."""
        return os.pread(self._log, 8192, 0).decode(errors="replace")

    async def close(self) -> None:
        """Wait for the launcher, and so for every supervisor."""
        self._orders.close()
        with trio.move_on_after(_GRACE):
            await trio.lowlevel.wait_readable(self._pidfd)
            self._process.wait()
        os.close(self._pidfd)
        os.close(self._log)


class _Supervisor:
    """Our end of one supervisor."""

    def __init__(self, channel: socket.socket, name: str) -> None:
        self.channel = channel
        self.name = name

    def send(self, content: dict[str, Any], output: list[int], locks: Iterable[int], stdin: int) -> None:
        """The request, with the descriptor of its input and the writing ends of two pipes, which are closed here, and
        the locks."""
        envelope = messages.envelope(content)
        given = (stdin,) if stdin >= 0 else ()
        try:
            order = {"stdin": bool(given), "attended": False}
            messages.send(self.channel, order, (envelope, *given, *output, *locks))
        except messages.Lost:
            pass  # `report` will say why
        finally:
            for fd in (envelope, *given, *output):
                os.close(fd)

    def fileno(self) -> int:
        return self.channel.fileno()

    def has_ended(self) -> bool:
        """Of one that was asked for nothing yet: it says nothing else."""
        return messages.is_readable(self.channel.fileno())

    def report(self) -> dict[str, Any] | None:
        """The supervisor's one answer. None: it is gone without one."""
        try:
            message, _ = messages.receive(self.channel)
        except messages.Lost:
            return None
        return message

    async def kill(self) -> None:
        """Kill the step and wait until all of it is gone."""
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            return
        with trio.move_on_after(_GRACE):
            await trio.lowlevel.wait_readable(self.channel)

    def close(self) -> None:
        self.channel.close()


class _Pipe:
    """The reading end of a stream of the step."""

    def __init__(self, number: int, on_output: Output) -> None:
        self._number = number
        self._on_output = on_output
        self.fd, self._theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:  # over the user's soft limit of pipe memory
            pass

    def read(self) -> int | None:
        """Pass on what is there and return its length: 0 at the end, None when there is nothing now."""
        try:
            chunk = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return None
        if chunk:
            self._on_output(self._number, chunk)
        return len(chunk)

    def hand_over(self) -> int:
        """The writing end, for the caller to send and close."""
        theirs, self._theirs = self._theirs, -1
        return theirs

    def close(self) -> None:
        for fd in (self.fd, self._theirs):
            if fd >= 0:
                os.close(fd)


class _Runtime:
    def __init__(self, launcher: _Launcher, program: bundle.Program | None) -> None:
        self._launcher = launcher
        self._program = program
        self._spare: _Supervisor | None = launcher.order()

    @property
    def name(self) -> str:
        return self._program.name if self._program else "builtin"

    def rest(self) -> None:
        if self._spare:
            self._spare.close()
            self._spare = None

    def _taken(self) -> _Supervisor:
        """The supervisor of the next step: the spare one, unless it has died while it waited."""
        spare, self._spare = self._spare, None
        if spare and spare.has_ended():
            spare.close()
            spare = None
        return spare or self._launcher.order()

    async def run(
        self,
        spec: ProcessSpec,
        *,
        secrets: Mapping[str, SecretBytes],
        on_output: Output,
        locks: Iterable[int] = (),
        stdin: int = -1,
        stdout: int = -1,
        is_last: bool = False,
    ) -> Exit:
        supervisor = self._taken()
        pipes: list[_Pipe] = []
        given = [stdout] if stdout >= 0 else []
        try:
            try:
                content = request.build(spec, secrets, oci=self._program, group=supervisor.name)
                pipes = [_Pipe(number, on_output) for number in (1, 2)[len(given) :]]
            except BaseException:
                for fd in (stdin, *given):
                    if fd >= 0:
                        os.close(fd)
                raise
            supervisor.send(content, [*given, *(pipe.hand_over() for pipe in pipes)], locks, stdin)
            del content  # the secrets
            reach("step.requested")
            if not is_last:
                self._spare = self._launcher.order()
            try:
                report = await _watch(supervisor, pipes)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await supervisor.kill()
                raise
            reach("step.ended")
        finally:
            supervisor.close()
            for pipe in pipes:
                pipe.close()
        return self._exit(report)

    @asynccontextmanager
    async def open_container(self) -> AsyncIterator[Container]:
        if self._program is not None:
            raise HostError(f"{self.name} runs no containers for a client", hint="use the built-in runtime")
        from worker.runtime.container import Container

        supervisor = self._taken()
        container = Container(supervisor.channel, supervisor.name, self._exit)
        caught: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(container.attend)
                try:
                    yield container
                except BaseException as error:  # it leaves the block as it is, not in a group
                    caught = error
                nursery.cancel_scope.cancel()
        finally:
            container.end()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GRACE):
                await container.attend()
            supervisor.close()
        if caught is not None:
            raise caught

    def _exit(self, report: dict[str, Any] | None) -> Exit:
        if report is None:
            raise self._lost()
        if "failure" in report:
            raise failures.error(report["failure"])
        status = report["status"]
        killed = os.WIFSIGNALED(status)
        return Exit(
            code=0 if killed else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if killed else 0,
            oom_killed=report["oom"],
            cpu_seconds=report["cpu"],
            peak_memory=report["peak"],
        )

    def _lost(self) -> BuildError:
        log = self._launcher.log()
        if log:
            return InternalError("the launcher of steps failed", hint=log)
        return HostError(
            "the process that supervised the step was killed", hint="was it the kernel's out-of-memory killer?"
        )


async def _watch(supervisor: _Supervisor, pipes: list[_Pipe]) -> dict[str, Any] | None:
    """Pass output on until the supervisor reports, then what is left in the pipes.

    No process of the step lives at that point, so what is there is all there will ever be, even if somebody
    outside holds a copy of the pipe.
    """
    by_fd = {pipe.fd: pipe for pipe in pipes}
    with select.epoll() as epoll:
        for fd in (*by_fd, supervisor.fileno()):
            epoll.register(fd, select.EPOLLIN)
        while True:
            await trio.lowlevel.wait_readable(epoll.fileno())
            for fd, _ in epoll.poll(0):
                if fd == supervisor.fileno():
                    report = supervisor.report()
                    for pipe in pipes:
                        while pipe.read():
                            pass
                    return report
                if by_fd[fd].read() == 0:
                    epoll.unregister(fd)
