"""The process of a frontend's image: a step of its own, gRPC on its standard input and output, the rest as logs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, closing

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
from worker.containers import Attendant
from worker.layers.outcome import one_error
from worker.ops.clipping import Clipping

_HELD = 16 << 10  # bytes
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
        with ExitStack() as shown, one_error(), closing(_Connection(services)) as connection:
            output = _Output(self.gateway, self.name, bridge, shown)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.serve)
                with connection.is_there:
                    await self._run(connection, output)
                nursery.cancel_scope.cancel()
            if connection.is_there.cancelled_caught:
                raise BuildError(
                    "frontend grpc server closed unexpectedly",
                    hint=f"only gRPC may go to its standard output; the connection ended: {connection.why}",
                )

    async def _run(self, connection: _Connection, output: _Output) -> None:
        attendant = Attendant(name=self.name, open=connection.open, on_error=output.heard, files=self.files)
        try:
            await self.gateway.run_attended(self.op, self.root, platform=self.platform, attendant=attendant)
            output.end()
        except UserError as error:
            error.hint = error.hint or self.advice
            raise
        except ExecFailed as error:
            output.end()
            raise output.failed(error) from None


class _Connection:
    """The server half, on two pipes. Once it is over the process has a few seconds to end, until `is_there` is left."""

    def __init__(self, services: rpc.Services) -> None:
        self._services = services
        self._opened = trio.Event()
        self._ours: trio.StapledStream[trio.lowlevel.FdStream, trio.lowlevel.FdStream] | None = None
        self.is_there = trio.CancelScope()
        self.why = ""

    def open(self) -> tuple[int, int]:
        """The process's ends."""
        stdin, sending = os.pipe2(os.O_CLOEXEC)
        receiving, stdout = os.pipe2(os.O_CLOEXEC)
        self._ours = trio.StapledStream(trio.lowlevel.FdStream(sending), trio.lowlevel.FdStream(receiving))
        self._opened.set()
        return stdin, stdout

    async def serve(self) -> None:
        await self._opened.wait()
        assert self._ours is not None
        self.why = await serve_connection(self._ours, self._services, describe=status.to_rpc)
        self.close()
        self.is_there.deadline = trio.current_time() + _LEAVING

    def close(self) -> None:
        if self._ours is not None:
            self._ours.send_stream.close()
            self._ours.receive_stream.close()


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

    def heard(self, data: bytes) -> None:
        if self._bridge.said.is_set():
            self._held = (self._held + data)[-_HELD:]
        else:
            self._log(self._clipping.told(data))

    def end(self) -> None:
        """The process has ended, and all was heard."""
        if not self._bridge.said_error:
            self._log(self._clipping.told(bytes(self._held)))

    def failed(self, error: ExecFailed) -> ExecFailed:
        """The process's failure, as that of the step, of which the end is shown now."""
        self._log(self._clipping.end())
        return error.located(vertex=self._reporter.vertex if self._reporter else None)

    def _log(self, data: bytes) -> None:
        if data:
            self._reporter = self._reporter or self._shown.enter_context(self._gateway.show(self._name))
            self._reporter.log(2, data)
