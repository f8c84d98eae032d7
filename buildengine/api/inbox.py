"""Messages of one call that have come and wait to be taken. No I/O: whoever waits for one waits in his own loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import DecodeError, Message

from buildengine.api.framing import IDENTITY, MessageError
from buildengine.api.framing import Message as Framed
from buildengine.api.http2 import Core
from buildengine.api.rpc import MAX_MESSAGE, Code, RpcError


class Inbox:
    """`number` is the call's stream. What is taken makes room for more: there may be something to write afterwards."""

    def __init__(self, core: Core, number: int, incoming: type[Message], encoding: str) -> None:
        self._core = core
        self._number = number
        self._parse: Callable[[bytes], Any] = incoming.FromString
        self._waiting: deque[Framed] = deque()
        self.encoding = encoding
        self.is_last = False  # nothing more will come

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, messages: Iterable[Framed]) -> None:
        self._waiting.extend(messages)

    def take(self) -> Any:
        """Raises RpcError for what is no message."""
        framed = self._waiting.popleft()
        self._core.taken(self._number, (framed,))
        return self._parsed(framed)

    def take_all(self) -> list[Any]:
        """What waits; of a call with compressed messages as many as come to about one of the largest, since a few
        bytes may be many. Raises RpcError when something of it is no message."""
        if self.encoding != IDENTITY:
            return self._take_some()
        waiting, self._waiting = self._waiting, deque()
        self._core.taken(self._number, waiting)
        return [self._parsed(framed) for framed in waiting]

    def _take_some(self) -> list[Any]:
        taken: list[Any] = []
        size = 0
        while self._waiting and size < MAX_MESSAGE:
            taken.append(self.take())
            size += taken[-1].ByteSize()
        return taken

    def _parsed(self, framed: Framed) -> Any:
        try:
            return self._parse(framed.decoded(self.encoding))
        except MessageError as error:
            raise RpcError(error.status.code, error.status.message) from error
        except DecodeError as error:
            raise RpcError(Code.INTERNAL, f"grpc: error unmarshalling: {error}") from error
