"""Two ends of one HTTP/2 connection in memory, and frames made by hand."""

from __future__ import annotations

from hpack import Encoder

from buildengine.api import framing
from buildengine.api.http2 import Core
from buildengine.api.streams import Event

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.T/Echo"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Wire:
    """A client and a server; `to_server` and `to_client` carry what has been said and return what it meant there."""

    def __init__(self) -> None:
        self.client = Core(client=True, agent="test", clock=Clock())
        self.server = Core(client=False, clock=Clock())
        self.to_server()
        self.to_client()
        self.to_server()

    def to_server(self) -> list[Event]:
        return carry(self.client, self.server)

    def to_client(self) -> list[Event]:
        return carry(self.server, self.client)

    def both(self) -> tuple[list[Event], list[Event]]:
        """Until both have no more to say: what the server and what the client got."""
        served: list[Event] = []
        called: list[Event] = []
        while self.client.wants_output or self.server.wants_output:
            served += self.to_server()
            called += self.to_client()
        return served, called


def carry(source: Core, target: Core) -> list[Event]:
    events: list[Event] = []
    while data := source.output():
        events += target.receive(data)
    return events


def frames(data: bytes) -> list[framing.Frame]:
    """A client's preface is no frame."""
    return list(framing.FrameCutter(1 << 24).cut(data.removeprefix(PREFACE)))


def opened(*, client: bool = False, clock: Clock | None = None) -> Core:
    """A core whose other side is a test that writes frames: the settings have been exchanged."""
    core = Core(client=client, clock=clock or Clock())
    core.receive((b"" if client else PREFACE) + framing.frame(framing.SETTINGS, 0, 0))
    core.receive(framing.frame(framing.SETTINGS, framing.ACK, 0))
    core.output()
    return core


def header_block(headers: tuple[tuple[bytes, bytes], ...] = REQUEST) -> bytes:
    """Good on any connection: nothing in it refers to what was said before."""
    return bytes(Encoder().encode(headers))


def request(stream: int, headers: tuple[tuple[bytes, bytes], ...] = REQUEST, flags: int = 0) -> bytes:
    return framing.frame(framing.HEADERS, framing.END_HEADERS | flags, stream, header_block(headers))


def message(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return framing.frame(framing.DATA, flags, stream, framing.prefix(len(payload)) + payload)
