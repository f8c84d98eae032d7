"""pybuild.v1.Explain: why the steps of a build ran. For `pybuild --addr`, which watches before it solves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Protocol

from buildengine.api import explain_pb2 as pb
from buildengine.api import rpc
from buildengine.api.convert import seconds, timestamp
from buildengine.api.rpc import ServerCall
from buildengine.events import Cause, ExplainEvent

SERVICE = "pybuild.v1.Explain"


class Explained(Protocol):
    """What builds are asked of."""

    def explained(self, ref: str) -> AbstractContextManager[AsyncIterator[ExplainEvent]]:
        """From the moment that the block is entered a build `ref` is to explain itself; what it says, to its end."""
        ...


class Explain:
    """The servicer."""

    def __init__(self, daemon: Explained) -> None:
        self._daemon = daemon

    @property
    def services(self) -> rpc.Services:
        return rpc.service(SERVICE, {"Watch": rpc.server_stream(pb.WatchRequest, pb.Explanation, self._watch)})

    async def _watch(self, request: pb.WatchRequest, call: ServerCall[pb.WatchRequest, pb.Explanation]) -> None:
        with self._daemon.explained(request.ref) as events:
            await call.send(pb.Explanation())
            async for event in events:
                await call.send(message(event))


def message(event: ExplainEvent) -> pb.Explanation:
    return pb.Explanation(
        vertex=event.vertex,
        name=event.name,
        fate=event.fate,
        cause=event.cause.value,
        text=event.text,
        details=event.details,
        since=None if event.since is None else timestamp(event.since),
    )


def explanation(told: pb.Explanation) -> ExplainEvent:
    """What a daemon says; a cause that is not known here is one all the same."""
    known = told.cause in {cause.value for cause in Cause}
    return ExplainEvent(
        vertex=told.vertex,
        name=told.name,
        fate=told.fate,
        cause=Cause(told.cause) if known else Cause.UNKNOWN,
        text=told.text,
        details=tuple(told.details),
        since=seconds(told.since) if told.HasField("since") else None,
    )
