"""The core of gRPC over HTTP/2: what is sent arrives, as one message each, however the bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buildengine.api import framing
from buildengine.api.headers import OK, Status
from buildengine.api.http2 import Core
from buildengine.api.outbox import MAX_FRAME, OUTPUT
from buildengine.api.rpc import MAX_MESSAGE, Code, Detail
from buildengine.api.streams import (
    STREAM_WINDOW,
    AnswerBegun,
    CallEnded,
    CallOpened,
    Event,
    GoingAway,
    HalfClosed,
    MessagesReceived,
)
from buildengine.api.windows import CONNECTION_WINDOW
from tests.fakes.http2_wire import Wire, carry, frames

sizes = st.one_of(st.integers(0, 40), st.integers(16_300, 16_500), st.integers(65_400, 140_000))


def payloads(events: list[Event], stream: int) -> list[bytes]:
    return [
        message.payload
        for event in events
        if isinstance(event, MessagesReceived) and event.stream == stream
        for message in event.messages
    ]


def one_by_one(events: list[Event]) -> list[Event]:
    """The same with each message on its own."""
    single: list[Event] = []
    for event in events:
        if isinstance(event, MessagesReceived):
            single += [MessagesReceived(stream=event.stream, messages=[message]) for message in event.messages]
        else:
            single.append(event)
    return single


def statuses(events: list[Event]) -> list[Status]:
    return [event.status for event in events if isinstance(event, CallEnded)]


def test_a_call_with_its_answer() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo", (("key", "value"), ("raw-bin", b"\x00\xff")), 1.5)
    wire.client.send(call, b"question")
    wire.client.half_close(call)
    served, _ = wire.both()
    opening, message, end = served
    assert isinstance(opening, CallOpened)
    assert opening.request.path == "/t.T/Echo"
    assert opening.request.metadata == (("key", "value"), ("raw-bin", b"\x00\xff"))
    assert opening.request.timeout == 1.5
    assert isinstance(message, MessagesReceived)
    assert [one.payload for one in message.messages] == [b"question"]
    assert isinstance(end, HalfClosed)

    wire.server.begin_answer(call, (("answered", "by-us"),))
    wire.server.send(call, b"answer")
    wire.server.finish(call, OK)
    _, called = wire.both()
    assert called[0] == AnswerBegun(stream=call, metadata=(("answered", "by-us"),), encoding="identity")
    assert payloads(called, call) == [b"answer"]
    assert called[-1] == CallEnded(stream=call, status=OK)
    assert wire.client.calls == wire.server.calls == 0


@given(st.lists(sizes, max_size=6), st.lists(st.integers(1, 30_000), max_size=60), st.booleans())
def test_any_cut_of_the_bytes_means_the_same(messages: list[int], cuts: list[int], half_close: bool) -> None:
    def said() -> bytes:
        """Two calls that take turns: the same bytes every time."""
        client = Core(client=True, agent="test")
        calls = [client.open("/t.T/Echo", (("key", "value"),)), client.open("/t.T/Echo")]
        for index, size in enumerate(messages):
            client.send(calls[index % 2], bytes([index]) * size)
        if half_close:
            client.half_close(calls[0])
        client.receive(framing.frame(framing.SETTINGS, 0, 0, b"\x00\x04\x00\x40\x00\x00"))  # a window of 4 MiB
        client.receive(framing.frame(framing.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big")))
        return b"".join(iter(client.output, b""))

    data = said()
    whole = Core(client=False).receive(data)
    cut = Core(client=False)
    events: list[Event] = []
    at = 0
    for length in cuts:
        events += cut.receive(data[at : at + length])
        at += length
    events += cut.receive(data[at:])
    assert one_by_one(events) == one_by_one(whole)
    assert [len(p) for p in payloads(whole, 1)] == messages[::2]
    assert [len(p) for p in payloads(whole, 3)] == messages[1::2]


def test_one_byte_at_a_time() -> None:
    client, server = Core(client=True, agent="test"), Core(client=False)
    call = client.open("/t.T/Echo")
    client.send(call, b"one")
    client.half_close(call)
    events = [event for byte in client.output() for event in server.receive(bytes([byte]))]
    assert [type(event) for event in events] == [CallOpened, MessagesReceived, HalfClosed]


def test_small_messages_share_a_frame() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    for _ in range(500):
        wire.client.send(call, b"x" * 100)
    data = wire.client.output()
    assert [len(frame.raw) for frame in frames(data) if frame.kind == framing.DATA] == [framing.HEADER + 500 * 105]
    assert payloads(wire.server.receive(data), call) == [b"x" * 100] * 500


def test_streams_take_turns() -> None:
    wire = Wire()
    first, second = wire.client.open("/t.T/Echo"), wire.client.open("/t.T/Echo")
    wire.client.send(first, b"x" * 10 * MAX_FRAME)
    wire.client.send(second, b"y")
    order = [frame.stream for frame in frames(wire.client.output()) if frame.kind == framing.DATA]
    assert order[:3] == [first, second, first]


def test_one_write_is_bounded() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.client.send(call, b"x" * (2 << 20))
    assert len(wire.client.output()) < OUTPUT + 2 * MAX_FRAME


def test_a_message_of_the_largest_size_passes_a_smaller_window() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.client.send(call, b"x" * MAX_MESSAGE)
    served, _ = wire.both()
    assert [len(p) for p in payloads(served, call)] == [MAX_MESSAGE]


def test_a_message_over_the_limit_ends_its_call_only() -> None:
    wire = Wire()
    other, call = wire.client.open("/t.T/Echo"), wire.client.open("/t.T/Echo")
    wire.client.send(call, b"x" * (MAX_MESSAGE + 1))
    served, called = wire.both()
    assert [status.code for status in statuses(served)] == [Code.RESOURCE_EXHAUSTED]
    assert [(status.code, status.message) for status in statuses(called)] == [
        (Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({MAX_MESSAGE + 1} vs. {MAX_MESSAGE})")
    ]
    wire.client.send(other, b"still there")
    assert payloads(wire.to_server(), other) == [b"still there"]


def test_an_answer_over_the_limit_ends_its_call() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.to_server()
    wire.server.send(call, b"x" * (MAX_MESSAGE + 1))
    served, called = wire.both()
    assert [status.code for status in statuses(called)] == [Code.RESOURCE_EXHAUSTED]
    assert [status.code for status in statuses(served)] == [Code.CANCELLED]


def test_who_does_not_take_messages_holds_their_sender() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    for _ in range(40):
        wire.client.send(call, b"x" * (1 << 20))
    served, _ = wire.both()
    assert wire.client.pending(call) >= 36 << 20
    assert len(payloads(served, call)) <= STREAM_WINDOW >> 20
    received = 0
    while served:
        received += len(one_by_one(served))
        for event in served:
            if isinstance(event, MessagesReceived):
                wire.server.taken(call, event.messages)
        served, _ = wire.both()
    assert wire.client.pending(call) == 0
    assert received == 41  # the call, and each message once


def test_many_large_messages_that_begin_together_all_end() -> None:
    """Nobody can take a message that is not whole: those must not close the connection's window."""
    wire = Wire()
    calls = [wire.client.open("/t.T/Echo") for _ in range(30)]
    for call in calls:
        wire.client.send(call, b"x" * (4 << 20))
    served, _ = wire.both()
    got = 0
    while arrived := [event for event in served if isinstance(event, MessagesReceived)]:
        got += sum(len(event.messages) for event in arrived)
        for event in arrived:
            wire.server.taken(event.stream, event.messages)
        served, _ = wire.both()
    assert got == 30


def test_calls_that_nobody_reads_do_not_hold_others() -> None:
    wire = Wire()
    stuck = [wire.client.open("/t.T/Echo") for _ in range(4)]
    for call in stuck:
        for _ in range(8):
            wire.client.send(call, b"x" * (1 << 20))
    wire.both()
    assert 4 * STREAM_WINDOW > CONNECTION_WINDOW
    assert all(wire.client.pending(call) > 0 for call in stuck)
    call = wire.client.open("/t.T/Echo")
    wire.client.send(call, b"y")
    assert payloads(wire.both()[0], call) == [b"y"]


def test_what_is_held_is_bounded_over_all_calls() -> None:
    wire = Wire()
    calls = [wire.client.open("/t.T/Echo") for _ in range(40)]
    for call in calls:
        for _ in range(30):
            wire.client.send(call, b"x" * 100_000)
    served, _ = wire.both()
    got = [event for event in served if isinstance(event, MessagesReceived)]
    assert sum(message.size for event in got for message in event.messages) < 80 << 20
    for event in got:
        wire.server.taken(event.stream, event.messages)
    more, _ = wire.both()
    assert sum(len(event.messages) for event in [*got, *more] if isinstance(event, MessagesReceived)) == 40 * 30


@given(st.text(max_size=40), st.sampled_from(list(Code)[1:]), st.lists(st.binary(max_size=40), max_size=3))
def test_a_status_without_messages_is_one_block_of_headers(text: str, code: Code, values: list[bytes]) -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.to_server()
    details = tuple(Detail(type_url="type.example/x", value=value) for value in values)
    wire.server.finish(call, Status(code=code, message=text, details=details))
    data = wire.server.output()
    assert [frame.kind for frame in frames(data)] == [framing.HEADERS, framing.RST_STREAM]
    assert wire.client.receive(data) == [
        CallEnded(stream=call, status=Status(code=code, message=text, details=details))
    ]


def test_details_that_the_caller_cannot_take_are_left_out() -> None:
    """A caller that takes 16 KiB of headers (grpcio's default) gets the message, not a broken call."""
    wire = Wire()
    wire.server.receive(framing.frame(framing.SETTINGS, 0, 0, b"\x00\x06" + (16 << 10).to_bytes(4, "big")))
    call = wire.client.open("/t.T/Echo")
    wire.to_server()
    large = Detail(type_url="x", value=b"y" * (20 << 10))
    wire.server.finish(call, Status(code=Code.ABORTED, message="why ö" * 5000, details=(large,)))
    (end,) = statuses(wire.to_client())
    assert end.code == Code.ABORTED
    assert end.details == ()
    assert end.message.startswith("why ö")
    assert "\ufffd" not in end.message[:-1]


def test_a_caller_that_resets_ends_its_call() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.to_server()
    wire.client.reset(call)
    assert [status.code for status in statuses(wire.to_server())] == [Code.CANCELLED]
    wire.server.send(call, b"too late")
    wire.server.finish(call, OK)
    assert wire.to_client() == []


def test_an_end_before_the_caller_has_half_closed_is_an_end() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.client.send(call, b"x" * (1 << 20))
    wire.to_server()
    wire.server.finish(call, OK)
    _, called = wire.both()
    assert statuses(called) == [OK]
    assert wire.client.calls == wire.server.calls == 0


def test_calls_end_well_when_the_other_side_goes_away() -> None:
    wire = Wire()
    early, late = wire.client.open("/t.T/Echo"), wire.client.open("/t.T/Echo")
    wire.to_server()
    goaway = framing.frame(framing.GOAWAY, 0, 0, early.to_bytes(4, "big") + bytes(4) + b"restart")
    ended, going = wire.client.receive(goaway)[::-1]
    assert isinstance(going, GoingAway)
    assert "restart" in going.reason
    assert isinstance(ended, CallEnded)
    assert (ended.stream, ended.status.code) == (late, Code.UNAVAILABLE)
    wire.server.send(early, b"answer")
    wire.server.finish(early, OK)
    called = wire.to_client()
    assert payloads(called, early) == [b"answer"]
    assert statuses(called) == [OK]


def test_a_window_that_opens_lets_the_rest_out() -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.client.send(call, b"x" * (STREAM_WINDOW - 5))
    wire.client.send(call, b"last")
    wire.client.half_close(call)
    served = carry(wire.client, wire.server)
    assert not any(isinstance(event, HalfClosed) for event in served)
    first = next(event for event in served if isinstance(event, MessagesReceived))
    wire.server.taken(call, first.messages)
    served, _ = wire.both()
    assert payloads(served, call) == [b"last"]
    assert isinstance(served[-1], HalfClosed)
