"""The builds that a daemon remembers: `buildengine.history.BuildHistory` through BuildKit's API. Each call is one
asyncio run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from buildengine.api import content_pb2, control_pb2, convert, records
from buildengine.api.rpc import Code, RpcError
from buildengine.client.address import Address
from buildengine.client.connect import connect
from buildengine.client.connection import Connection
from buildengine.client.running import run_to_end
from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.events import EventSink
from buildengine.history import BuildRecord, HistoryQuery

_T = TypeVar("_T")
_CONTROL = "/moby.buildkit.v1.Control"
_READ = "/containerd.services.content.v1.Content/Read"


class RemoteHistory:
    def __init__(self, address: Address) -> None:
        self._address = address

    def records(self, query: HistoryQuery) -> Sequence[BuildRecord]:
        request = control_pb2.BuildHistoryRequest(
            Ref=query.ref, EarlyExit=True, ActiveOnly=query.active_only, Filter=query.filters, Limit=query.limit
        )

        async def run(daemon: Connection) -> Sequence[BuildRecord]:
            responses = daemon.server_stream(f"{_CONTROL}/ListenBuildHistory", request, control_pb2.BuildHistoryEvent)
            async with aclosing(responses) as events:
                return [records.record(event.record) async for event in events if event.HasField("record")]

        return self._connected(run)

    def logs(self, ref: str, on_event: EventSink) -> None:
        async def run(daemon: Connection) -> None:
            request = control_pb2.StatusRequest(Ref=ref)
            responses = daemon.server_stream(f"{_CONTROL}/Status", request, control_pb2.StatusResponse)
            async with aclosing(responses):
                async for response in responses:
                    for event in convert.events(response):
                        on_event(event)

        self._connected(run)

    def remove(self, ref: str) -> None:
        async def run(daemon: Connection) -> None:
            request = control_pb2.UpdateBuildHistoryRequest(Ref=ref, Delete=True)
            await daemon.unary(f"{_CONTROL}/UpdateBuildHistory", request, control_pb2.UpdateBuildHistoryResponse)

        self._connected(run)

    def failure(self, record: BuildRecord) -> BuildError | None:
        return records.failure_of(record, self.document)

    def document(self, digest: Digest) -> bytes | None:
        async def run(daemon: Connection) -> bytes | None:
            request = content_pb2.ReadContentRequest(digest=digest)
            responses = daemon.server_stream(_READ, request, content_pb2.ReadContentResponse)
            try:
                async with aclosing(responses):
                    return b"".join([response.data async for response in responses])
            except RpcError as error:
                if error.code is not Code.NOT_FOUND:
                    raise
                return None

        return self._connected(run)

    def _connected(self, run: Callable[[Connection], Awaitable[_T]]) -> _T:
        async def main() -> _T:
            async with connect(self._address) as daemon:
                return await run(daemon)

        return run_to_end(main)
