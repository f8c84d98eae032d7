"""HTTP on a stream in memory: what waits is bounded, what is cut is known to be cut, whatever the pieces."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
import trio.testing

from buildengine.errors import StoreError
from worker.registry.server.answers import Answer, Refusal
from worker.registry.server.transfer import STEP, receive
from worker.registry.server.wire import Interrupted, Limits, Request, Stream, Wire

LIMITS = Limits(head_bytes=4096, head=10, idle=60, step=30, unread=1000)


class Client:
    """The other end of a wire."""

    def __init__(self) -> None:
        self.stream, server = trio.testing.memory_stream_pair()
        self.wire = Wire(cast(Stream, server), LIMITS)

    async def request(self, data: bytes, *, ends: bool = False) -> Request | None:
        await self.stream.send_all(data)
        if ends:
            await self.stream.send_eof()
        return await self.wire.request()


async def body(wire: Wire) -> bytes:
    parts: list[bytes] = []
    await receive(wire.body, lambda data: parts.append(bytes(data)))
    return b"".join(parts)


HEAD = b"PUT /v2/a/manifests/b?c=d HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n"


async def test_a_request_in_any_pieces() -> None:
    whole = HEAD + b"Content-Length: 5\r\n\r\nhello"
    for size in range(1, 40):
        client = Client()
        async with trio.open_nursery() as nursery:

            async def send(client: Client = client, size: int = size) -> None:
                for start in range(0, len(whole), size):
                    await client.stream.send_all(whole[start : start + size])
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(send)
            request = await client.wire.request()
            assert request == Request(
                method="PUT",
                target="/v2/a/manifests/b?c=d",
                headers={"host": "h", "x-a": "1, 2", "content-length": "5"},
                length=5,
            )
            assert await body(client.wire) == b"hello"
        assert (client.wire.body.received, client.wire.body.failure) == (5, None)


async def test_a_chunked_body_in_any_pieces() -> None:
    chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (n, b"x" * n) for n in (1, 16, 300)) + b"0\r\nTrailer: t\r\n\r\n"
    whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    for size in (1, 2, 7, 100, 10_000):
        client = Client()
        for start in range(0, len(whole), size):
            await client.stream.send_all(whole[start : start + size])
        request = await client.wire.request()
        assert request is not None
        assert request.length is None
        assert await body(client.wire) == b"x" * 317
        assert (client.wire.body.is_done, client.wire.body.failure) == (True, None)


async def test_what_came_before_a_cut_is_not_lost() -> None:
    client = Client()
    await client.request(HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 40, ends=True)
    assert await body(client.wire) == b"x" * 40
    assert isinstance(client.wire.body.failure, Interrupted)
    client = Client()
    await client.request(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe", ends=True)
    assert await body(client.wire) == b"hellohe"
    assert isinstance(client.wire.body.failure, Interrupted)


async def test_a_chunk_that_is_none() -> None:
    client = Client()
    await client.request(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
    assert await body(client.wire) == b"hello"
    assert isinstance(client.wire.body.failure, Interrupted)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT / HTTP/2.0\r\nHost: h\r\n\r\n",
        HEAD + b"X: " + b"y" * LIMITS.head_bytes + b"\r\n\r\n",
    ],
)
async def test_what_may_be_read_in_two_ways_ends_the_connection(head: bytes) -> None:
    client = Client()
    with pytest.raises(Refusal) as caught:
        await client.request(head)
    assert caught.value.answer.close


@pytest.mark.parametrize("size", [10, STEP, STEP + 1, 3 * STEP])
async def test_a_disk_that_fails_is_one_error(size: int) -> None:
    def write(data: memoryview) -> None:
        raise StoreError("full")

    client = Client()
    await client.request(HEAD + f"Content-Length: {size}\r\n\r\n".encode() + b"x" * size)
    with pytest.raises(StoreError):
        await receive(client.wire.body, write)


async def test_a_client_that_has_gone() -> None:
    assert await Client().request(b"", ends=True) is None
    with pytest.raises(Refusal):
        await Client().request(b"GET /v2", ends=True)


async def test_a_head_has_its_time(autojump_clock: trio.testing.MockClock) -> None:
    client = Client()
    with pytest.raises(Refusal) as caught:
        await client.request(b"GET /v2/ HTTP/1.1\r\n")
    assert caught.value.answer.status == 408
    assert autojump_clock.current_time() == LIMITS.head


async def test_a_connection_may_rest_a_while(autojump_clock: trio.testing.MockClock) -> None:
    assert await Client().wire.request() is None
    assert autojump_clock.current_time() == LIMITS.idle


async def test_a_body_has_its_time(autojump_clock: trio.testing.MockClock) -> None:
    client = Client()
    await client.request(HEAD + b"Content-Length: 10\r\n\r\nabc")
    started = trio.current_time()
    assert await body(client.wire) == b"abc"
    assert trio.current_time() - started == LIMITS.step
    failure = client.wire.body.failure
    assert isinstance(failure, Refusal)
    assert failure.answer.status == 408
    assert failure.answer.close


async def test_who_does_not_read_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    """A stream that takes nothing: `send_all` never returns."""
    client, server = trio.testing.lockstep_stream_pair()
    wire = Wire(cast(Stream, server), LIMITS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n")
        request = await wire.request()
    with pytest.raises(Interrupted):
        await wire.answer(request, Answer(status=200, body=b"x" * 100))
    assert autojump_clock.current_time() == LIMITS.step


async def said(client: Client, answer: Answer, request: Request | None) -> tuple[bool, bytes]:
    goes_on = await client.wire.answer(request, answer)
    return goes_on, bytes(await client.stream.receive_some(100_000))


@asynccontextmanager
async def asking(data: bytes) -> AsyncIterator[tuple[Client, Request | None]]:
    client = Client()
    yield client, await client.request(data)


async def test_an_answer_with_its_head() -> None:
    async with asking(b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n") as (client, request):
        goes_on, text = await said(client, Answer(status=200, headers=(("X", "a\r\nb"),), body=b"hello"), request)
    assert goes_on
    assert text.startswith(b"HTTP/1.1 200 OK\r\nX: a  b\r\n")
    assert text.endswith(b"Content-Length: 5\r\n\r\nhello")
    assert client.wire.sent == 5


async def test_the_answer_to_head_has_no_body() -> None:
    async with asking(b"HEAD /v2/ HTTP/1.1\r\nHost: h\r\n\r\n") as (client, request):
        goes_on, text = await said(client, Answer(status=200, body=b"hello"), request)
    assert goes_on
    assert text.endswith(b"Content-Length: 5\r\n\r\n")
    assert client.wire.sent == 0


async def test_no_length_where_there_is_no_body() -> None:
    async with asking(b"GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n") as (client, request):
        _, text = await said(client, Answer(status=204), request)
    assert b"Content-Length" not in text


async def test_a_small_body_that_nobody_wanted_is_read_away() -> None:
    first = HEAD + b"Content-Length: 500\r\n\r\n" + b"x" * 500
    async with asking(first + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n") as (client, request):
        goes_on, text = await said(client, Answer(status=404), request)
        assert goes_on
        assert b"Connection: close" not in text
        following = await client.wire.request()
        assert following is not None
        assert following.target == "/next"


async def test_a_large_body_that_nobody_wanted_ends_the_connection() -> None:
    first = HEAD + b"Content-Length: 500000\r\n\r\n" + b"x" * 100_000
    async with asking(first) as (client, request):
        goes_on, text = await said(client, Answer(status=404), request)
    assert not goes_on
    assert re.search(rb"\r\nConnection: close\r\n", text)


async def test_who_waits_for_the_go_ahead_is_not_told_when_refused() -> None:
    async with asking(HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") as (client, request):
        goes_on, text = await said(client, Answer(status=404), request)
    assert not goes_on
    assert text.startswith(b"HTTP/1.1 404 ")
