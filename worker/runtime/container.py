"""The engine's side of a step that somebody talks to: streams both ways, terminals, signals, more processes in it.

    async with runtime.open_container() as container:
        shell = await container.start(spec, secrets=..., stdin=True)      # PID 1
        other = await container.start(another, secrets=...)               # joins it: only its process counts
        other.signal(15)
        await other.wait()

When PID 1 ends everything in the container does. Leaving the block kills what is left and waits for that.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from buildengine.errors import UserError
from worker.runtime import messages, request
from worker.runtime.spec import ProcessSpec
from worker.session import SecretBytes

if TYPE_CHECKING:
    from worker.runtime.runtime import Exit

_ATTENDED = {"attended": True}


class Process:
    """One process. Its descriptors, -1 where there is none, belong to whoever started it: `stdin` is the end to write
    to, `stdout` and `stderr` those to read from; of a process with a terminal, `terminal` is all of them."""

    def __init__(self, container: Container, number: int) -> None:
        self.stdin = self.stdout = self.stderr = self.terminal = -1
        self.started = trio.Event()
        self.ended = trio.Event()
        self.report: dict[str, Any] | None = None
        self._container = container
        self._number = number
        self._abandoned = False

    async def signal(self, number: int) -> None:
        """Nothing happens when it has ended."""
        if not self.ended.is_set():
            await self._container.order({"process": self._number, "signal": int(number)})

    async def wait(self) -> Exit:
        """How it ended. Raises UserError, HostError when it could not be started."""
        await self.ended.wait()
        return self._container.exit_of(self.report)

    async def abandon(self) -> None:
        """Kill it, and close what is open of it here: its caller never got it."""
        self._abandoned = True
        for fd in (self.stdin, self.stdout, self.stderr, self.terminal):
            if fd >= 0:
                os.close(fd)
        with trio.CancelScope(shield=True):
            await self.signal(signal.SIGKILL)

    def take_terminal(self, fd: int) -> None:
        if self._abandoned:
            os.close(fd)
        else:
            self.terminal = fd

    def end(self, report: dict[str, Any] | None) -> None:
        self.report = report
        self.started.set()
        self.ended.set()


class Container:
    """Made by `Runtime.open_container`. `channel` leads to the supervisor of the step `name`."""

    def __init__(self, channel: socket.socket, name: str, exit_of: Callable[[dict[str, Any] | None], Exit]) -> None:
        self._channel = channel
        self._name = name
        self._processes: dict[int, Process] = {}
        self._count = 0
        self._gone = False
        self._full = trio.Lock()  # one waits for room in the channel, the others for him
        self.exit_of = exit_of

    async def start(
        self,
        spec: ProcessSpec,
        *,
        secrets: Mapping[str, SecretBytes],
        stdin: bool = False,
        locks: Iterable[int] = (),
    ) -> Process:
        """Returns once the process runs, or has failed to. Raises UserError when the container has ended."""
        number = self._count
        if number == 0:
            content = request.build(spec, secrets, group=self._name)
        else:
            content = request.build_joining(spec, secrets)
        if self._gone:
            raise UserError("the container has ended: no process can join it")
        self._count += 1  # only now: a first process that was refused is none
        process = self._processes[number] = Process(self, number)
        theirs = _open_streams(process, stdin=stdin and not spec.terminal, pipes=not spec.terminal)
        envelope = messages.envelope(content)
        del content  # the secrets
        order = {"process": number, "stdin": stdin and not spec.terminal} | (_ATTENDED if number == 0 else {})
        try:
            try:
                await self.order(order, (envelope, *theirs, *(locks if number == 0 else ())))
            finally:
                for fd in (envelope, *theirs):
                    os.close(fd)
            await process.started.wait()
        except BaseException:
            await process.abandon()
            raise
        return process

    async def order(self, order: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        while True:
            try:
                messages.send(self._channel, order, fds)
                return
            except messages.Lost:
                return  # whoever waits for a process will hear of it
            except BlockingIOError:
                async with self._full:
                    await trio.lowlevel.wait_writable(self._channel)

    async def attend(self) -> None:
        """Take what the supervisor says until it is gone."""
        while True:
            await trio.lowlevel.wait_readable(self._channel)
            try:
                said, fds = messages.receive(self._channel)
            except BlockingIOError:
                continue
            except messages.Lost:
                break
            self._heard(said, fds)
        self._all_ended(None)

    def end(self) -> None:
        """Kill what is left: `attend` ends when that has gone."""
        try:
            self._channel.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            pass

    def _heard(self, said: dict[str, Any], fds: list[int]) -> None:
        number = said.pop("process", None)
        if number is None:  # of the step, and so of PID 1
            self._all_ended(said)
            return
        process = self._processes[number]
        if "terminal" in said:
            process.take_terminal(fds[0])
        elif "started" in said:
            process.started.set()
        else:
            process.end(said)

    def _all_ended(self, report: dict[str, Any] | None) -> None:
        self._gone = True
        for process in self._processes.values():
            if not process.ended.is_set():
                process.end(report)


def _open_streams(process: Process, *, stdin: bool, pipes: bool) -> list[int]:
    """The process's ends of its streams, in the order in which its request names them."""
    theirs = []
    if stdin:
        end, process.stdin = os.pipe2(os.O_CLOEXEC)
        theirs.append(end)
    for name in ("stdout", "stderr"):
        ours, end = os.pipe2(os.O_CLOEXEC)
        theirs.append(end)
        if pipes:
            setattr(process, name, ours)
        else:
            os.close(ours)
    return theirs
