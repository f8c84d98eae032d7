"""HTTP/1.1 on the wire: connections that are used again, bodies of every framing, proxies, what ends too early."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from buildengine.errors import ConfigError, SourceError
from worker.registry.transport import FollowingTransport, StreamedBody, Unreachable, open_transport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Scripted:
    """Answers the requests on all of its connections in turn, each with the next bytes of a script.

    b"" hangs up instead; so does every answer that does not leave the connection open.
    """

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = iter(answers)
        self.heads: list[tuple[int, str]] = []  # number of the connection, head of the request
        self.bodies: list[bytes] = []
        self._connections = 0
        self.host = ""

    async def connection(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        number, received = self._connections, b""
        while True:
            while b"\r\n\r\n" not in received:
                data = await stream.receive_some(65536)
                if not data:
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            lines = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
            length = int(lines.get("content-length", "0"))
            self.heads.append((number, head.decode()))
            answer = next(self._answers)
            while len(received) < length and b" 413 " not in answer:
                received += await stream.receive_some(65536)
            self.bodies.append(received[:length])
            received = received[length:]
            await stream.send_all(answer)
            if not answer.startswith(b"HTTP/1.1") or b"close" in answer or b"-length" not in answer:
                await stream.aclose()
                return


@asynccontextmanager
async def scripted(*answers: bytes, proxy: str = "") -> AsyncIterator[tuple[Scripted, FollowingTransport]]:
    """A server, and a transport that goes through `proxy`, where {} is that server."""
    server = Scripted(answers)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.connection, 0, host="127.0.0.1"))
        server.host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_transport(proxy=lambda scheme, host: proxy.format(server.host)) as transport:
            yield server, transport
        nursery.cancel_scope.cancel()


async def get(transport: FollowingTransport, url: str, method: str = "GET") -> tuple[int, bytes]:
    async with transport.send(method, url, {}) as response:
        return response.status, await response.read(1000)


async def test_a_connection_is_used_again() -> None:
    answers = (OK, b"HTTP/1.1 404 No\r\ncontent-length: 3\r\n\r\nno!", OK)
    async with scripted(*answers) as (server, transport):
        for expected in ((200, b"ok"), (404, b"no!")):
            assert await get(transport, f"http://{server.host}/a") == expected
        async with transport.send("PUT", f"http://{server.host}/b", {}, b"body") as response:
            assert response.status == 200
            assert await response.read(10) == b"ok"
    assert [number for number, _ in server.heads] == [1, 1, 1]
    assert server.bodies == [b"", b"", b"body"]


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, Close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
    ],
    ids=["says close", "old", "said more than was asked"],
)
async def test_a_connection_that_can_carry_no_other_request_is_not(first: bytes) -> None:
    async with scripted(first, OK) as (server, transport):
        for _ in range(2):
            assert await get(transport, f"http://{server.host}/") == (200, b"ok")
    assert [number for number, _ in server.heads] == [1, 2]


async def test_what_is_not_read_to_its_end_is_not_used_again() -> None:
    async with scripted(OK, OK) as (server, transport):
        async with transport.send("GET", f"http://{server.host}/", {}) as response:
            assert response.status == 200
        assert await get(transport, f"http://{server.host}/") == (200, b"ok")
    assert [number for number, _ in server.heads] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n", b"abcdefg"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it hangs up", b"until it hangs up"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
    ids=["chunked", "until the end", "after a continue", "empty"],
)
async def test_every_framing_of_a_body(answer: bytes, body: bytes) -> None:
    async with scripted(answer) as (server, transport):
        assert await get(transport, f"http://{server.host}/") == (200, body)


async def test_a_head_request_has_no_body_whatever_is_announced() -> None:
    async with scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", OK) as (server, transport):
        assert await get(transport, f"http://{server.host}/", "HEAD") == (200, b"")
        assert await get(transport, f"http://{server.host}/") == (200, b"ok")
    assert [number for number, _ in server.heads] == [1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ],
    ids=["length", "chunk", "nonsense"],
)
async def test_a_body_that_ends_too_early_is_told_each_time(answer: bytes) -> None:
    async with scripted(answer) as (server, transport), transport.send("GET", f"http://{server.host}/", {}) as response:
        for _ in range(2):
            with pytest.raises(Unreachable, match="broke off"):
                await response.read(1000)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nno end", b"SSH-2.0\r\n\r\n"])
async def test_no_answer(answer: bytes) -> None:
    async with scripted(answer) as (server, transport):
        with pytest.raises(Unreachable, match=f"cannot reach http://{server.host}/"):
            await get(transport, f"http://{server.host}/")


async def test_an_answer_that_comes_before_all_was_sent_is_heard() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    refused = b"HTTP/1.1 413 Too large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig"
    async with scripted(refused) as (server, transport):
        body = StreamedBody(size=64 << 20, open=endless)
        try:
            async with transport.send("PUT", f"http://{server.host}/", {}, body) as response:
                assert (response.status, await response.read(10)) == (413, b"big")
        except Unreachable:
            pass  # the reset of the connection may overtake the answer


async def test_more_or_less_than_was_promised_is_not_sent_as_whole() -> None:
    async def two() -> AsyncGenerator[bytes]:
        yield b"xy"

    for size in (1, 3):
        async with scripted(OK) as (server, transport):
            with trio.fail_after(20), pytest.raises(SourceError):
                async with transport.send("PUT", f"http://{server.host}/", {}, StreamedBody(size=size, open=two)):
                    pass
        assert server.bodies in ([], [b"xy"])


async def test_a_proxy_is_given_the_whole_url_and_what_it_wants_to_see() -> None:
    async with scripted(OK, proxy="http://me:s%40y@{}") as (server, transport):
        assert await get(transport, "http://registry.example:5000/v2/?a=b") == (200, b"ok")
    lines = server.heads[0][1].split("\r\n")
    assert lines[0] == "GET http://registry.example:5000/v2/?a=b HTTP/1.1"
    told = "proxy-authorization: Basic " + base64.b64encode(b"me:s@y").decode()
    assert {"host: registry.example:5000", told} <= {line[:1].lower() + line[1:] for line in lines}


async def test_a_proxy_that_opens_no_tunnel() -> None:
    async with scripted(b"HTTP/1.1 403 Not there\r\ncontent-length: 0\r\n\r\n", proxy="{}") as (server, transport):
        with pytest.raises(SourceError, match="the proxy answers 403 Not there"):
            await get(transport, "https://registry.example/v2/")
    assert server.heads[0][1].startswith("CONNECT registry.example:443 HTTP/1.1\r\n")


async def test_what_is_no_proxy() -> None:
    async with scripted(proxy="socks5://{}") as (_, transport):
        with pytest.raises(ConfigError, match="cannot use the proxy"):
            await get(transport, "http://registry.example/")
