"""A frontend in a process of its own: the LLBBridge that it calls, from its start to its end.

    result = await hosted(gateway, request, worker, carry)

`carry` is the way to it: it runs the process, answers its calls by the services that it is given, and returns when the
process has ended; the bridge behind the services tells it whether the frontend has had its last word. A container's
pipes carry gRPC (`buildengine.api.connection`), a socketpair may carry messages (`buildengine.api.answering`): for the
build they are alike.

Facts: BuildKit frontend/gateway/gateway.go (Solve, serveLLBBridgeForwarder).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from buildengine.api import rpc
from buildengine.api.daemon import WorkerInfo
from buildengine.api.gateway import SERVICE
from buildengine.api.gateway import Gateway as Servicer
from buildengine.api.health import Health
from buildengine.daemon.bridge import Bridge
from buildengine.errors import BuildError
from frontends.gateway import FrontendRequest, FrontendResult, Gateway
from worker.layers.outcome import one_error

PATIENCE = 10.0  # seconds for the process to end by itself once it has had its last word

Carry = Callable[[rpc.Services, Bridge], Awaitable[None]]


async def hosted(
    gateway: Gateway,
    request: FrontendRequest,
    worker: Callable[[], WorkerInfo],
    carry: Carry,
    *,
    patience: float = PATIENCE,
) -> FrontendResult:
    """What the frontend gives back. Raises BuildError: what it says of an error, or what `carry` raises.

    A process that returns a result and fails then has failed. One that does not end within `patience` seconds then is
    cancelled, and its result counts.
    """
    bridge = Bridge(gateway, request)
    services = _services(bridge, worker)
    ended = trio.Event()

    async def run() -> None:
        try:
            await carry(services, bridge)
        except BuildError as error:
            bridge.left(error)
        else:
            bridge.left(None)
        ended.set()

    try:
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await bridge.last_word()
                with trio.move_on_after(patience):
                    await ended.wait()
                nursery.cancel_scope.cancel()
        return bridge.result()
    finally:
        await bridge.close()


def _services(bridge: Bridge, worker: Callable[[], WorkerInfo]) -> rpc.Services:
    async def find(_: rpc.Metadata) -> Bridge:
        return bridge

    return rpc.merged(Servicer(find, worker).services, Health(SERVICE).services)
