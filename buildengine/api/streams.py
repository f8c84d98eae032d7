"""What one connection tells of its calls (events), and what it keeps of one while it lasts."""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.api.framing import Message, MessageCutter
from buildengine.api.headers import Headers, Request, Status
from buildengine.api.rpc import Metadata
from buildengine.values import dataclass

STREAM_WINDOW = 4 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOpened:
    """Server: the other side calls."""

    stream: int
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerBegun:
    """Client: the answer's first headers."""

    stream: int
    metadata: Metadata
    encoding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesReceived:
    """At least one, in order."""

    stream: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfClosed:
    """Server: the caller will send no more."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """Client: the call has its status. Server: the caller wants no answer any more. Nothing follows on this stream."""

    stream: int
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class GoingAway:
    """The other side takes no new calls. Those that go on do so."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The connection is over: write what the output still has, and close it."""

    reason: str


Event = CallOpened | AnswerBegun | MessagesReceived | HalfClosed | CallEnded | GoingAway | Broken


class Stream:
    """One call on its connection: what has come, what has to go."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cutter = MessageCutter()
        self.begun = False  # the answer's headers have come (client) or gone (server)
        self.remote_ended = False
        self.local_ended = False
        self.status: Status | None = None  # client: as the trailers said
        self.window = STREAM_WINDOW  # bytes that the other side may still send
        self.held = 0  # bytes of messages that have not been taken
        self.unfinished = 0  # bytes of the message that has begun
        self.owed = 0  # bytes taken and not given back yet
        self.extra = 0  # granted beyond STREAM_WINDOW, for one message that is larger
        self.pending = bytearray()  # bytes to be sent
        self.ending: Headers | None = None  # what follows them: trailers; for a client nothing, just the end
