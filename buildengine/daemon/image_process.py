"""The process of a frontend's image: a container, gRPC on its standard input and output, its standard error as logs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import trio

from buildengine.api import rpc, status
from buildengine.api.connection import serve_connection
from buildengine.daemon.bridge import Bridge
from buildengine.daemon.gateway import LocalGateway, LocalReference
from buildengine.errors import BuildError, ExecFailed, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb.ops import ExecOp
from solver.reporter import Reporter
from worker.layers.outcome import one_error
from worker.ops.clipping import Clipping
from worker.ops.step import TAIL
from worker.runtime.container import Process
from worker.runtime.runtime import Exit

_CHUNK = 64 << 10
_LEAVING = 5.0  # seconds between the end of its connection and its own


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendProcess:
    """`op` is what is run, on the tree `root`; `files` are there besides. `name` is what its output is shown under.
    `advice` is for whoever reads that it could not be started.
    """

    gateway: LocalGateway
    op: ExecOp
    root: LocalReference
    platform: Platform
    name: str
    files: Mapping[str, bytes]
    advice: str | None = None

    async def carry(self, services: rpc.Services, bridge: Bridge) -> None:
        """A `buildengine.daemon.hosted.Carry`."""
        opened = self.gateway.open_container(
            self.op, [self.root], platform=self.platform, name=self.name, files=self.files
        )
        with ExitStack() as shown:
            output = _Output(self.gateway, self.name, bridge, shown)
            async with opened as container:
                process = await container.start(self.op, terminal=False, stdin=True)
                connection = _Connection(process, services)
                with one_error():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(output.listen, process.stderr)
                        nursery.start_soon(connection.serve)
                        with connection.is_there:
                            ended = await self._ended(process)
                            await output.heard.wait()
                            output.end()
                            try:
                                container.check_exit(self.op, ended, output.tail)
                            except ExecFailed as error:
                                raise output.failed(error) from None
                            nursery.cancel_scope.cancel()
                            return
                        nursery.cancel_scope.cancel()
            raise BuildError(
                "frontend grpc server closed unexpectedly",
                hint=f"only gRPC may go to its standard output; the connection ended: {connection.why}",
            )

    async def _ended(self, process: Process) -> Exit:
        try:
            return await process.wait()
        except UserError as error:
            error.hint = error.hint or self.advice
            raise


class _Connection:
    """The server half. Once the connection is over the process has a few seconds to end, until `is_there` is left."""

    def __init__(self, process: Process, services: rpc.Services) -> None:
        self._pipes = trio.StapledStream(trio.lowlevel.FdStream(process.stdin), trio.lowlevel.FdStream(process.stdout))
        self._services = services
        self.is_there = trio.CancelScope()
        self.why = ""

    async def serve(self) -> None:
        async with self._pipes:
            self.why = await serve_connection(self._pipes, self._services, describe=status.to_rpc)
        self.is_there.deadline = trio.current_time() + _LEAVING


class _Output:
    """What the process has to say to people: a step of the build's progress, `shown` if it says anything.

    What it prints once it has told of an error is left out: for Go that is a trace of its own end.
    """

    def __init__(self, gateway: LocalGateway, name: str, bridge: Bridge, shown: ExitStack) -> None:
        self._gateway = gateway
        self._name = name
        self._bridge = bridge
        self._held = bytearray()
        self._shown = shown
        self._reporter: Reporter | None = None
        self._clipping = Clipping(gateway.output_limits)
        self._tail = bytearray()
        self.heard = trio.Event()  # all of it

    async def listen(self, fd: int) -> None:
        async with trio.lowlevel.FdStream(fd) as stream:
            async for data in stream:
                self._tail = (self._tail + data)[-TAIL:]
                if self._bridge.said.is_set():
                    self._held = (self._held + data)[-TAIL:]
                else:
                    self._log(self._clipping.told(bytes(data)))
        self.heard.set()

    def end(self) -> None:
        """The process has ended, and all was heard."""
        if not self._bridge.said_error:
            self._log(self._clipping.told(bytes(self._held)))

    def failed(self, error: ExecFailed) -> ExecFailed:
        """The process's failure, as that of the step, of which the end is shown now."""
        self._log(self._clipping.end())
        return error.located(vertex=self._reporter.vertex if self._reporter else None)

    @property
    def tail(self) -> bytes:
        return bytes(self._tail)

    def _log(self, data: bytes) -> None:
        if data:
            self._reporter = self._reporter or self._shown.enter_context(self._gateway.show(self._name))
            self._reporter.log(2, data)
