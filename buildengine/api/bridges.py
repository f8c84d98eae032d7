"""Which build a call of the gateway API belongs to: builds that wait for their client, by their ids.

A client starts its Solve and its calls of the LLBBridge at the same time, so whoever looks for a build waits for it a
while. Facts: BuildKit control/gateway/gateway.go, client/buildid, solver/errdefs/jobs.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

from buildengine.api import rpc
from buildengine.api.bridge import BUILD_ID
from buildengine.api.rpc import Code, RpcError
from buildengine.errors import BuildError

WAIT = 3.0  # seconds for a build to appear

_T = TypeVar("_T")


def unknown_job(ref: str) -> RpcError:
    """How BuildKit says that there is no such build."""
    return RpcError(Code.NOT_FOUND, f"no such job {ref}")


class Bridges(Generic[_T]):
    """The builds that are open for calls; a bridge is whatever answers them."""

    def __init__(self) -> None:
        self._bridges: dict[str, _T] = {}
        self._changed = trio.lowlevel.ParkingLot()

    @contextmanager
    def opened(self, ref: str, bridge: _T) -> Iterator[None]:
        if ref in self._bridges:
            raise BuildError(f"build ID {ref} exists")
        self._bridges[ref] = bridge
        self._changed.unpark_all()
        try:
            yield
        finally:
            del self._bridges[ref]

    async def find(self, metadata: rpc.Metadata, *, timeout: float = WAIT) -> _T:
        """The build that a call names. Raises RpcError: NOT_FOUND when it does not appear within `timeout` seconds."""
        named = rpc.values(metadata, BUILD_ID)
        if len(named) != 1:
            raise RpcError(Code.UNKNOWN, "no buildid found in context")
        with trio.move_on_after(timeout):
            while named[0] not in self._bridges:
                await self._changed.park()
            return self._bridges[named[0]]
        raise unknown_job(named[0])
