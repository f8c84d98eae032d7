"""The containers of one build's client, by the ids that the client gave them."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from buildengine import platform as platforms
from buildengine.api.bridge import ContainerOrder, ProcessOrder
from buildengine.api.rpc import Code, RpcError
from buildengine.daemon.gateway import LocalGateway
from frontends.gateway import Reference
from worker.containers import ClientContainer
from worker.runtime.container import Process

_SIGNALLED = 128


class ClientProcess:
    """An `api.bridge.Process`."""

    def __init__(self, process: Process, held: _Held) -> None:
        self.stdin, self.terminal = process.stdin, process.terminal
        self.stdout, self.stderr = process.stdout, process.stderr
        self._process = process
        self._held = held

    async def signal(self, number: int) -> None:
        await self._process.signal(number)

    async def wait(self) -> int:
        await self._process.ended.wait()
        if self._held.released.is_set():
            raise RpcError(Code.CANCELLED, "context canceled")
        ended = await self._process.wait()
        return _SIGNALLED + ended.signal if ended.signal else ended.code


class _Held:
    """One container, until it is released."""

    def __init__(self) -> None:
        self.container: ClientContainer | None = None  # until it is there
        self.processes: list[Process] = []
        self.released = trio.Event()
        self.gone = trio.Event()


class Containers:
    """`nursery` holds them; its end is theirs."""

    def __init__(self, gateway: LocalGateway, nursery: trio.Nursery) -> None:
        self._gateway = gateway
        self._nursery = nursery
        self._held: dict[str, _Held] = {}

    async def open(self, order: ContainerOrder, inputs: Sequence[Reference | None]) -> None:
        """Raises BuildError; RpcError(ALREADY_EXISTS) for an id that is in use."""
        if order.id in self._held:
            raise RpcError(Code.ALREADY_EXISTS, f"Container {order.id} already exists")
        held = self._held[order.id] = _Held()
        try:
            await self._nursery.start(self._hold, order, inputs, held)
        except BaseException:
            self._held.pop(order.id, None)
            raise

    async def _hold(
        self,
        order: ContainerOrder,
        inputs: Sequence[Reference | None],
        held: _Held,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        platform = order.platform or platforms.local()
        name = f"container {order.id}"
        try:
            async with self._gateway.open_container(order.op, inputs, platform=platform, name=name) as held.container:
                task_status.started()
                try:
                    await held.released.wait()
                finally:
                    held.released.set()
        finally:
            held.gone.set()

    async def release(self, id: str) -> None:
        """Raises RpcError for one that is not there; CANCELLED when something still ran in it, as BuildKit does."""
        held = self._held.pop(id, None)
        if held is None:
            raise RpcError(Code.UNKNOWN, f"container details for {id} not found")
        was_running = any(not process.ended.is_set() for process in held.processes)
        held.released.set()
        await held.gone.wait()
        if was_running:
            raise RpcError(Code.CANCELLED, "context canceled")

    async def start(self, order: ProcessOrder) -> ClientProcess:
        """Raises BuildError, RpcError(NOT_FOUND)."""
        held = self._held.get(order.container)
        if held is None or held.container is None:
            raise RpcError(Code.NOT_FOUND, f'container "{order.container}" previously released or not created')
        process = await held.container.start(order.op, terminal=order.terminal, stdin=order.stdin)
        held.processes.append(process)
        return ClientProcess(process, held)
