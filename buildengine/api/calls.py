"""One call as its servicer or caller holds it: messages that wait to be taken, messages that go out, how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol

import trio
from google.protobuf.message import Message

from buildengine.api.framing import Message as Framed
from buildengine.api.headers import Request, Status
from buildengine.api.http2 import Core
from buildengine.api.inbox import Inbox
from buildengine.api.rpc import Code, Metadata, RpcError

HIGH_WATER = 256 << 10  # bytes of one call that wait to be written before its sender does


class Link(Protocol):
    """What a call needs of its connection."""

    core: Core

    def wake(self) -> None:
        """There may be something to write."""
        ...

    async def drained(self, number: int) -> None:
        """Until what waits to be written on this stream is not much, or the call has ended."""
        ...


class ServerLink(Link, Protocol):
    """What a call that is served needs besides."""

    def hold(self, size: int) -> None:
        """Bytes of a request, until its call has ended. Raises RpcError when all calls together hold too much."""
        ...


class Call(ABC):
    """What both sides of a call have in common."""

    def __init__(self, link: Link, number: int, incoming: type[Message], encoding: str) -> None:
        self._link, self._core, self._number = link, link.core, number
        self._inbox = Inbox(link.core, number, incoming, encoding)
        self._news = trio.lowlevel.ParkingLot()
        self.status: Status | None = None

    # The connection tells.

    def arrived(self, messages: Iterable[Framed]) -> None:
        self._inbox.put(messages)
        self._news.unpark_all()

    def half_closed(self) -> None:
        self._inbox.is_last = True
        self._news.unpark_all()

    def ended(self, status: Status) -> None:
        if self.status is None:
            self.status = status
        self._news.unpark_all()

    # The servicer or caller asks.

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_sending()
        waiting = self._core.send(self._number, message.SerializeToString())
        self._link.wake()
        if waiting > HIGH_WATER:
            await self._link.drained(self._number)
            self._check_sending()

    async def receive(self) -> Any:
        await self._come()
        try:
            return self._inbox.take() if self._inbox else None
        finally:
            self._link.wake()

    async def receive_many(self) -> list[Any]:
        await self._come()
        try:
            return self._inbox.take_all()
        finally:
            self._link.wake()

    async def _come(self) -> None:
        """Until there are messages, or will be none any more. Raises RpcError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._is_settled():
            await self._news.park()

    @abstractmethod
    def _is_settled(self) -> bool:
        """Whether what there is now is all that will come, or something. Raises RpcError."""

    @abstractmethod
    def _check_sending(self) -> None:
        """Raises RpcError when nothing may be sent any more."""


class InboundCall(Call):
    """A call that we serve: an `rpc.ServerCall`."""

    def __init__(self, link: ServerLink, number: int, request: Request, incoming: type[Message]) -> None:
        super().__init__(link, number, incoming, request.encoding)
        self._server = link
        self._request = request
        self.held = 0  # bytes of its first message, which is all that most have
        self.scope = trio.CancelScope()
        self.stopped = False

    @property
    def path(self) -> str:
        return self._request.path

    @property
    def metadata(self) -> Metadata:
        return self._request.metadata

    def ended(self, status: Status) -> None:
        super().ended(status)
        self.scope.cancel()

    def stop(self) -> None:
        """The server wants it to end."""
        self.stopped = True
        self.scope.cancel()

    async def receive(self) -> Any:
        message = await super().receive()
        if message is not None and not self.held:
            size = message.ByteSize()
            self._server.hold(size)
            self.held = size
        return message

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_sending()
        self._core.begin_answer(self._number, metadata)
        self._link.wake()

    def _is_settled(self) -> bool:
        self._check_sending()
        return bool(self._inbox) or self._inbox.is_last

    def _check_sending(self) -> None:
        if self.status is not None:
            raise RpcError(Code.CANCELLED, self.status.message)


class OutboundCall(Call):
    """A call to the other side: an `rpc.ClientCall`."""

    def __init__(self, link: Link, number: int, incoming: type[Message]) -> None:
        super().__init__(link, number, incoming, "identity")
        self._metadata: Metadata | None = None

    def begun(self, metadata: Metadata, encoding: str) -> None:
        self._metadata, self._inbox.encoding = metadata, encoding
        self._news.unpark_all()

    async def initial_metadata(self) -> Metadata:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._metadata is None:
            if self.status is not None:
                return () if self.status.code == Code.OK else self._fail(self.status)
            await self._news.park()
        return self._metadata

    async def half_close(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._core.half_close(self._number)
        self._link.wake()

    def _is_settled(self) -> bool:
        if self._inbox:
            return True
        if self.status is not None and self.status.code != Code.OK:
            self._fail(self.status)
        return self.status is not None

    def _check_sending(self) -> None:
        if self.status is not None:
            if self.status.code == Code.OK:
                raise RpcError(Code.CANCELLED, "the other side has ended the call with OK")
            self._fail(self.status)

    def _fail(self, status: Status) -> NoReturn:
        raise RpcError(status.code, status.message, status.details)
