"""What a hostile or broken other side sends is answered or refused: never a traceback, never without bound."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from buildengine.api import framing
from buildengine.api.control_pb2 import BytesMessage
from buildengine.api.framing import MessageError
from buildengine.api.h2settings import MAX_CALLS, MAX_HEADERS
from buildengine.api.headers import OK, Status
from buildengine.api.http2 import Core
from buildengine.api.inbox import Inbox
from buildengine.api.outbox import MAX_FRAME
from buildengine.api.rpc import MAX_MESSAGE, Code
from buildengine.api.streams import STREAM_WINDOW, Broken, CallEnded, CallOpened, Event, GoingAway, MessagesReceived
from buildengine.api.windows import CONNECTION_WINDOW
from tests.fakes.http2_wire import PREFACE, REQUEST, Clock, Wire, frames, header_block, message, opened, request

CALM, PROTOCOL, FLOW, SIZE = 11, 1, 3, 6  # HTTP/2 error codes

kinds = st.integers(0, 12)
streams = st.sampled_from([0, 1, 1, 1, 2, 3, 5, 0x7FFFFFFF])
payloads = st.one_of(st.binary(max_size=40), st.just(header_block()), st.just(framing.prefix(3) + b"abc"))
frame_lists = st.lists(st.tuples(kinds, st.integers(0, 255), streams, payloads), max_size=12)


def goaway(core: Core) -> int:
    """The error code that the core ended the connection with."""
    last = [frame for frame in frames(core.output()) if frame.kind == framing.GOAWAY][-1]
    return int.from_bytes(last.raw[framing.HEADER + 4 : framing.HEADER + 8], "big")


def is_broken(events: list[Event]) -> bool:
    return any(isinstance(event, Broken) for event in events)


@given(frame_lists, st.booleans())
def test_any_frames_are_answered_or_refused(sent: list[tuple[int, int, int, bytes]], client: bool) -> None:
    core = opened(client=client)
    if client:
        core.send(core.open("/t.T/Echo"), b"question")
    else:
        core.receive(request(1))
    for kind, flags, stream, payload in sent:
        for event in core.receive(framing.frame(kind, flags, stream, payload)):
            if isinstance(event, CallOpened):
                core.send(event.stream, b"answer")
        core.output()
    assert not core.broken or core.receive(b"more") == []
    core.output()


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_answered_or_refused(data: bytes, whole: bool) -> None:
    core = Core(client=False)
    core.receive((PREFACE if whole else b"") + data)
    core.output()


def test_http_1_is_refused() -> None:
    core = Core(client=False)
    assert is_broken(core.receive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))


@pytest.mark.parametrize(
    ("change", "status"),
    [((b":method", b"GET"), b"405"), ((b"content-type", b"text/html"), b"415")],
)
def test_a_request_of_something_else_gets_its_http_status(change: tuple[bytes, bytes], status: bytes) -> None:
    core = opened()
    asked = tuple((name, change[1] if name == change[0] else value) for name, value in REQUEST)
    assert core.receive(request(1, asked, framing.END_STREAM)) == []
    answer = frames(core.output())[0]
    assert answer.kind == framing.HEADERS
    assert (b":status", status) in list(Decoder().decode(answer.raw[framing.HEADER :], raw=True))
    assert core.calls == 0


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ((b"grpc-timeout", b"soon"), Code.INTERNAL),
        ((b"grpc-timeout", b"123456789S"), Code.INTERNAL),
        ((b"raw-bin", b"!"), Code.INTERNAL),
        ((b"grpc-encoding", b"snappy"), Code.UNIMPLEMENTED),
    ],
)
def test_headers_that_cannot_be_read_end_the_call(extra: tuple[bytes, bytes], code: Code) -> None:
    wire = Wire()
    call = wire.client.open("/t.T/Echo")
    wire.client.reset(call)
    wire.to_server()
    assert wire.server.receive(request(call + 2, (*REQUEST, extra))) == []
    wire.client.open("/t.T/Echo")
    wire.client.output()
    (ended,) = [event for event in wire.to_client() if isinstance(event, CallEnded)]
    assert ended.status.code == code


@pytest.mark.parametrize(
    "frame",
    [
        framing.frame(framing.PING, 0, 0, b"12345678"),
        framing.frame(framing.SETTINGS, 0, 0),
        framing.frame(framing.DATA, 0, 1),
        framing.frame(framing.DATA, framing.PADDED, 1, b"\x03\0\0\0"),
        framing.frame(framing.PRIORITY, 0, 1, b"\0\0\0\0\x10"),
        framing.frame(0x42, 0, 0, b"?"),
        framing.frame(framing.RST_STREAM, 0, 9, bytes(4)),
    ],
    ids=["ping", "settings", "empty data", "padding", "priority", "unknown", "reset of nothing"],
)
def test_a_flood_ends_the_connection(frame: bytes) -> None:
    core = opened()
    core.receive(request(1))
    for stream in (3, 5, 7, 9):
        core.receive(request(stream) + framing.frame(framing.RST_STREAM, 0, stream, bytes(4)))
    for _ in range(10):
        assert not is_broken(core.receive(frame * 200))
        core.output()
    assert is_broken(core.receive(frame * 5000))
    assert goaway(core) == CALM


def test_pings_are_welcome_at_the_pace_of_a_clock_or_of_data() -> None:
    clock = Clock()
    core = opened(clock=clock)
    core.receive(request(1))
    ping = framing.frame(framing.PING, 0, 0, b"12345678")
    for _ in range(100):
        clock.now += 1
        assert not is_broken(core.receive(ping * 400))
        assert len(frames(core.output())) == 400
    for _ in range(20_000):
        core.receive(message(1, b"x") + ping)
    assert not core.broken


def test_calls_that_are_reset_as_soon_as_they_open_end_the_connection() -> None:
    """CVE-2023-44487."""
    core = opened()
    for stream in range(1, 20_000, 2):
        if is_broken(core.receive(request(stream) + framing.frame(framing.RST_STREAM, 0, stream, b"\0\0\0\x08"))):
            break
    assert 8000 < stream < 9000
    assert goaway(core) == CALM


def test_answers_to_who_does_not_read_are_told() -> None:
    core = opened()
    core.receive(framing.frame(framing.PING, 0, 0, b"12345678") * 4000)
    assert core.flooded
    core.output()
    assert not core.flooded


def test_calls_at_a_time_are_bounded() -> None:
    core = opened()
    events = core.receive(b"".join(request(2 * n + 1) for n in range(MAX_CALLS + 1)))
    assert len([event for event in events if isinstance(event, CallOpened)]) == MAX_CALLS
    assert is_broken(events)


def test_header_lists_are_bounded() -> None:
    core = opened()
    large = tuple((b"x-%d" % n, b"y" * 1000) for n in range(MAX_HEADERS // 1000))
    block = header_block((*REQUEST, *large))
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    data = framing.frame(framing.HEADERS, 0, 1, parts[0])
    for part in parts[1:]:
        data += framing.frame(framing.CONTINUATION, framing.END_HEADERS if part is parts[-1] else 0, 1, part)
    assert is_broken(core.receive(data))
    assert goaway(core) == CALM


def test_a_header_block_without_end_is_refused() -> None:
    core = opened()
    data = framing.frame(framing.HEADERS, 0, 1, header_block()) + framing.frame(framing.CONTINUATION, 0, 1, b"") * 100
    assert is_broken(core.receive(data))


def test_a_continuation_of_nothing_hides_nothing_that_follows() -> None:
    """For a stream that was reset h2 answers it with a reset, and goes on."""
    core = opened(client=True)
    call = core.open("/t.T/Echo")
    core.reset(call)
    core.open("/t.T/Echo")  # h2 forgets the first one now
    assert core.receive(framing.frame(framing.CONTINUATION, 0, call, b"")) == []
    event, *_ = core.receive(framing.frame(framing.GOAWAY, 0, 0, bytes(8)))
    assert isinstance(event, GoingAway)
    assert not core.broken


def test_data_within_a_header_block_is_refused() -> None:
    core = opened()
    events = core.receive(framing.frame(framing.HEADERS, 0, 1, header_block()) + message(1, b"x"))
    assert is_broken(events)
    assert goaway(core) == PROTOCOL


def test_a_frame_longer_than_we_take_is_refused() -> None:
    core = opened()
    assert is_broken(core.receive(framing.frame_header(MAX_FRAME + 1, framing.DATA, 0, 1)))
    assert goaway(core) == SIZE


def test_more_data_than_the_windows_is_refused() -> None:
    core = opened()
    core.receive(request(1))
    data = message(1, b"x" * (MAX_FRAME - framing.PREFIX))
    events: list[Event] = []
    for _ in range(STREAM_WINDOW // MAX_FRAME + 1):
        events += core.receive(data)
    (ended,) = [event for event in events if isinstance(event, CallEnded)]
    assert "window" in ended.status.message
    for _ in range(CONNECTION_WINDOW // MAX_FRAME * 2):
        core.receive(data)
    assert not core.broken  # what is thrown away is given back


def test_padding_is_no_data() -> None:
    core = opened()
    core.receive(request(1))
    padded = b"\x02" + framing.prefix(3) + b"abc" + b"\0\0"
    (event,) = core.receive(framing.frame(framing.DATA, framing.PADDED, 1, padded))
    assert isinstance(event, MessagesReceived)
    assert [message.payload for message in event.messages] == [b"abc"]
    assert is_broken(core.receive(framing.frame(framing.DATA, framing.PADDED, 1, b"\x09abc")))


def test_a_stream_that_ends_within_a_message_ends_its_call() -> None:
    core = opened()
    events = core.receive(request(1) + framing.frame(framing.DATA, framing.END_STREAM, 1, framing.prefix(10) + b"abc"))
    assert isinstance(events[-1], CallEnded)
    assert events[-1].status.code == Code.INTERNAL


def test_a_message_with_an_unknown_flag_ends_its_call() -> None:
    core = opened()
    events = core.receive(request(1) + framing.frame(framing.DATA, 0, 1, b"\x02" + bytes(4)))
    assert isinstance(events[-1], CallEnded)
    assert events[-1].status.code == Code.INTERNAL


def test_a_push_is_refused() -> None:
    core = opened(client=True)
    core.open("/t.T/Echo")
    promise = framing.frame(framing.PUSH_PROMISE, framing.END_HEADERS, 1, b"\0\0\0\x02" + header_block())
    assert is_broken(core.receive(promise))


def test_a_window_opened_too_far_ends_its_call() -> None:
    core = opened()
    core.receive(request(1))
    events = core.receive(framing.frame(framing.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"))
    assert [type(event) for event in events] == [CallEnded]
    assert not core.broken


def test_gzip_is_read() -> None:
    packed = gzip.compress(b"x" * 1000)
    one = framing.Message(payload=packed, compressed=True)
    assert one.decoded("gzip") == b"x" * 1000


@pytest.mark.parametrize(
    ("payload", "encoding", "said"),
    [
        (gzip.compress(b"x" * (MAX_MESSAGE + 1)), "gzip", "larger than max"),
        (gzip.compress(b"x" * 1000)[:-9], "gzip", "cut off"),
        (zlib.compress(b"x"), "gzip", "not gzip"),
        (b"x", "identity", "grpc-encoding"),
    ],
    ids=["bomb", "cut off", "zlib", "identity"],
)
def test_what_is_not_gzip_is_refused(payload: bytes, encoding: str, said: str) -> None:
    one = framing.Message(payload=payload, compressed=True)
    with pytest.raises(MessageError, match=said):
        one.decoded(encoding)


def test_small_messages_that_become_large_ones_are_not_all_taken_at_once() -> None:
    """A window full of them would be some gigabytes."""
    packed = gzip.compress(BytesMessage(data=bytes(4 << 20)).SerializeToString())
    inbox = Inbox(opened(), 1, BytesMessage, "gzip")
    inbox.put([framing.Message(packed, True)] * 20)
    sizes = []
    while inbox:
        sizes.append(sum(len(one.data) for one in inbox.take_all()))
    assert max(sizes) <= 2 * MAX_MESSAGE
    assert sum(sizes) == 20 * 4 << 20


@contextmanager
def memory(most: int) -> Iterator[None]:
    """What is kept at the end of the block that was not there before takes at most so many bytes."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= most


def test_a_message_in_many_small_pieces_takes_no_more_than_it_holds() -> None:
    cutter = framing.MessageCutter()
    with memory(1 << 20):
        assert list(cutter.cut(framing.prefix(1 << 19))) == []
        for _ in range(1 << 17):
            assert list(cutter.cut(bytes(bytearray(b"ab")))) == []
    assert cutter.waiting == framing.PREFIX + (1 << 18)
    (whole,) = cutter.cut(bytes(1 << 18))
    assert whole.payload == b"ab" * (1 << 17) + bytes(1 << 18)


def test_of_a_call_that_has_ended_no_half_message_is_kept() -> None:
    """It counts for nothing any more, and who does not read keeps the call's end from going out."""
    core = opened()
    begun = framing.prefix(4 << 20) + bytes(3 << 20)
    with memory(4 << 20):
        for number in range(1, 21, 2):
            core.receive(request(number))
            for at in range(0, len(begun), MAX_FRAME):
                core.receive(framing.frame(framing.DATA, 0, number, begun[at : at + MAX_FRAME]))
            core.finish(number, Status(code=Code.UNAVAILABLE))
    assert (core.broken, core.calls) == ("", 10)


def converse(wire: Wire, random: Random, calls: list[int]) -> None:
    """Something that one of the two does."""
    if random.random() < 0.2 and wire.client.can_open:
        calls.append(wire.client.open("/t.T/Echo", (("key", "v" * random.randrange(50)),)))
    if not calls:
        return
    call, payload = random.choice(calls), b"x" * random.choice([0, 5, 100, 70_000])
    random.choice(
        [
            lambda: wire.client.send(call, payload),
            lambda: wire.client.half_close(call),
            lambda: wire.client.reset(call),
            lambda: wire.server.begin_answer(call, ()),
            lambda: wire.server.send(call, payload),
            lambda: wire.server.finish(call, OK),
            lambda: wire.server.reset(call),
        ]
    )()


def mutated(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data)) if data else 0
    noise = random.randbytes(random.randrange(20))
    frame = framing.frame(random.randrange(11), random.randrange(256), random.choice([0, 1, 3, 2]), noise[:10])
    return random.choice([data[:at] + noise + data[at:], data[:at] + data[at + len(noise) :], data + frame])


@given(st.randoms(use_true_random=False))
def test_a_conversation_that_is_tampered_with_is_answered_or_refused(random: Random) -> None:
    wire, calls = Wire(), list[int]()
    for _ in range(random.randrange(40)):
        converse(wire, random, calls)
        source, target = random.choice([(wire.client, wire.server), (wire.server, wire.client)])
        data = source.output()
        for event in target.receive(mutated(data, random) if random.random() < 0.2 else data):
            if isinstance(event, MessagesReceived) and random.random() < 0.7:
                target.taken(event.stream, event.messages)
    for core in (wire.client, wire.server):
        core.output()
        assert not core.broken or core.calls == 0
