"""ExecProcess: all processes of a client on one stream, each by the id that the client gave it.

    client: Init          us: Started
    client: File, Resize, Signal       us: File          while it runs
                          us: Exit, then the end of each File, then Done

A stream that ends before its processes do kills them.

Facts: BuildKit frontend/gateway/gateway.go (ExecProcess), frontend/gateway/pb/exit.go, moby/sys/signal (names).
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios

import trio
from google.protobuf.any_pb2 import Any as Anything
from google.rpc.status_pb2 import Status

from buildengine.api import gateway_pb2 as pb
from buildengine.api.bridge import Bridge, Process, ProcessOrder
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.api.status import EXIT, detail, to_rpc
from buildengine.errors import BuildError
from llb import codec
from llb.ops import ExecOp
from llb.pb import ops_pb2

UNKNOWN_EXIT = 255  # of a process that never ran, or of which nobody knows how it ended
_CHUNK = 32 << 10
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_SHOWN = 100  # characters of a name that is wrong
_KILLING = 5.0  # seconds until it is said that a process is to be killed
_WAITING = 16  # messages for one process's input, before the whole stream waits for it

_Call = ServerCall[pb.ExecMessage, pb.ExecMessage]


class Processes:
    """The processes of one stream."""

    def __init__(self, bridge: Bridge, call: _Call) -> None:
        self._bridge = bridge
        self._call = call
        self._running: dict[str, _Running] = {}

    async def run(self) -> None:
        """Until the client says no more and every process has ended."""
        async with trio.open_nursery() as nursery:
            while (message := await self._call.receive()) is not None:
                if not message.ProcessID:
                    raise RpcError(Code.INVALID_ARGUMENT, "ProcessID required")
                if message.HasField("Init"):
                    await self._begin(nursery, message.ProcessID, message.Init)
                else:
                    await self._pass_on(message)
            for running in self._running.values():
                running.given.close()

    async def _begin(self, nursery: trio.Nursery, id: str, init: pb.InitMessage) -> None:
        if id in self._running:
            raise RpcError(Code.ALREADY_EXISTS, f"Process {id} already exists")
        process: Process
        try:
            process = await self._bridge.start(process_order(init))
        except BuildError as error:  # the process's failure, and not that of the stream
            process = _Never(error)
        running = self._running[id] = _Running(id, process, self._call, frozenset(init.Fds))
        nursery.start_soon(running.run)

    async def _pass_on(self, message: pb.ExecMessage) -> None:
        running = self._running.get(message.ProcessID)
        if running is None:
            raise RpcError(Code.NOT_FOUND, f'IO for process "{message.ProcessID}" not found')
        match message.WhichOneof("Input"):
            case "File":
                await running.feed(message.File)
            case "Resize":
                running.resize(message.Resize)
            case "Signal":
                await running.process.signal(signal_number(message.Signal.Name))


class _Never:
    """A process that could not be started."""

    stdin = stdout = stderr = terminal = -1

    def __init__(self, error: BuildError) -> None:
        self._error = error

    async def signal(self, number: int) -> None:
        return

    async def wait(self) -> int:
        raise self._error


class _Running:
    """One process, and the descriptors of it that are ours."""

    def __init__(self, id: str, process: Process, call: _Call, wanted: frozenset[int]) -> None:
        self.process = process
        self._id = id
        self._call = call
        self._wanted = wanted
        self._ended = False
        fds = (process.stdin, process.stdout, process.stderr, process.terminal)
        self._open = {fd for fd in fds if fd >= 0}
        self._scopes: set[trio.CancelScope] = set()
        self.given, self._taken = trio.open_memory_channel[bytes](_WAITING)

    async def feed(self, file: pb.FdMessage) -> None:
        if file.Fd != _STDIN or _STDIN not in self._wanted:
            raise RpcError(Code.OUT_OF_RANGE, f"fd {file.Fd} unavailable to write")
        try:
            if file.Data:
                await self.given.send(file.Data)
            if file.EOF:
                self.given.close()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it has ended, or closed its input

    def resize(self, size: pb.ResizeMessage) -> None:
        if self.process.terminal >= 0 and not self._ended:
            rows, columns = min(size.Rows, 0xFFFF), min(size.Cols, 0xFFFF)
            fcntl.ioctl(self.process.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def run(self) -> None:
        try:
            for fd in self._open:
                os.set_blocking(fd, False)
            await self._say(pb.ExecMessage(Started=pb.StartedMessage()))
            await self._carry()
            await self._say(pb.ExecMessage(Done=pb.DoneMessage()))
        finally:
            if not self._ended:  # its client has gone: nobody could end it any more
                with trio.move_on_after(_KILLING, shield=True):
                    await self.process.signal(signal.SIGKILL)
            self._ended = True
            for fd in [*self._open]:
                self._close(fd)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)

    async def _carry(self) -> None:
        """All three streams, and the end."""
        process = self.process
        outputs = {_STDOUT: process.terminal} if process.terminal >= 0 else {}
        outputs = outputs or {_STDOUT: process.stdout, _STDERR: process.stderr}
        async with trio.open_nursery() as nursery:
            feeding = trio.CancelScope()
            nursery.start_soon(self._feed, feeding)
            for number, fd in outputs.items():
                nursery.start_soon(self._tell, number, fd)
            exit = await self._exit()
            feeding.cancel()
            self._ended = True
            for scope in self._scopes:
                scope.cancel()
            await self._say(pb.ExecMessage(Exit=exit))

    async def _feed(self, scope: trio.CancelScope) -> None:
        fd = max(self.process.stdin, self.process.terminal)
        with scope, self._taken:
            async for data in self._taken:
                left = memoryview(data)
                while left and fd >= 0:
                    try:
                        left = left[os.write(fd, left) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(fd)
                    except OSError:  # nobody reads it any more
                        return self._close(self.process.stdin)
            self._close(self.process.stdin)
        return None

    async def _tell(self, number: int, fd: int) -> None:
        """An output, until its end; of what others have open still, until it is empty once the process has ended."""
        while fd >= 0 and (data := await self._read(fd)):
            if number in self._wanted:
                await self._say(pb.ExecMessage(File=pb.FdMessage(Fd=number, Data=data)))
        if number in self._wanted:
            await self._say(pb.ExecMessage(File=pb.FdMessage(Fd=number, EOF=True)))

    async def _read(self, fd: int) -> bytes:
        while True:
            try:
                return os.read(fd, _CHUNK)
            except BlockingIOError:
                if self._ended:
                    return b""
                with trio.CancelScope() as scope:
                    self._scopes.add(scope)
                    await trio.lowlevel.wait_readable(fd)
                self._scopes.discard(scope)
            except OSError:  # EIO: the other side of a terminal has gone
                return b""

    async def _exit(self) -> pb.ExitMessage:
        try:
            code = await self.process.wait()
        except (BuildError, RpcError) as error:
            return pb.ExitMessage(Code=UNKNOWN_EXIT, Error=status_message(to_rpc(error)))
        if code == 0:
            return pb.ExitMessage()
        told = RpcError(Code.UNKNOWN, f"exit code: {code}", (detail(EXIT, {"Code": code}),))
        return pb.ExitMessage(Code=code, Error=status_message(told))

    async def _say(self, message: pb.ExecMessage) -> None:
        message.ProcessID = self._id
        await self._call.send(message)


def process_order(init: pb.InitMessage) -> ProcessOrder:
    """Raises InvalidDefinition."""
    message = ops_pb2.ExecOp(meta=init.Meta, security=init.Security, secretenv=init.secretenv)
    return ProcessOrder(container=init.ContainerID, op=exec_op(message), terminal=init.Tty, stdin=_STDIN in init.Fds)


def exec_op(message: ops_pb2.ExecOp) -> ExecOp:
    op = codec.decode(ops_pb2.Op(exec=message).SerializeToString()).payload
    assert isinstance(op, ExecOp)
    return op


def signal_number(name: str) -> int:
    """`INT`, `RTMIN+3`: names as Go's moby/sys/signal has them. Raises RpcError."""
    base, plus, offset = name.removeprefix("SIG").partition("+")
    known = signal.Signals.__members__.get(f"SIG{base}")
    is_offset = offset.isascii() and offset.isdigit() and len(offset) <= len(str(signal.SIGRTMAX))
    number = int(known) + (int(offset) if is_offset else 0) if known is not None else 0
    if not 0 < number <= signal.SIGRTMAX or bool(plus) != is_offset:
        raise RpcError(Code.INVALID_ARGUMENT, f"Unknown signal {name[:_SHOWN]}")
    return number


def status_message(error: RpcError) -> Status:
    details = [Anything(type_url=each.type_url, value=each.value) for each in error.details]
    return Status(code=int(error.code), message=error.message, details=details)
