"""How connections end that nobody closes: the server says good-bye, or the other side is not there any more."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from google.protobuf.wrappers_pb2 import BytesValue

from buildengine.api import framing, rpc
from buildengine.api.connection import ANSWER, SILENCE, Closing, open_channel, serve_connection
from buildengine.api.rpc import Code, RpcError
from buildengine.daemon.listeners import Access, bind
from tests.fakes.http2_wire import frames
from tests.fakes.rpc_services import listening
from tests.integration.test_daemon_life import free_port

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # and empty settings


class Slow:
    """A call that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.leave = trio.Event(), trio.Event()

    async def wait(self, request: BytesValue, call: rpc.ServerCall[BytesValue, BytesValue]) -> BytesValue:
        self.begun.set()
        await self.leave.wait()
        return request

    @property
    def services(self) -> rpc.Services:
        return rpc.service("t.S", {"Wait": rpc.unary(BytesValue, BytesValue, self.wait)})


@asynccontextmanager
async def served(services: rpc.Services, closing: Closing, ended: trio.Event) -> AsyncIterator[rpc.Channel]:
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        async with theirs:
            await serve_connection(theirs, services, closing=closing)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_channel(ours) as channel:
            yield channel
        nursery.cancel_scope.cancel()


async def waited(channel: rpc.Channel, said: list[str]) -> None:
    try:
        answer = await channel.unary("/t.S/Wait", BytesValue(value=b"answer"), BytesValue)
        said.append(answer.value.decode())
    except RpcError as error:
        said.append(str(error))


async def test_calls_that_run_go_on_and_no_other_begins() -> None:
    slow, closing, ended, said = Slow(), Closing("enough"), trio.Event(), list[str]()
    async with served(slow.services, closing, ended) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(waited, channel, said)
        await slow.begun.wait()
        closing.begun.set()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RpcError, match="takes no more calls") as caught:
            await channel.unary("/t.S/Wait", BytesValue(), BytesValue)
        assert (caught.value.code, ended.is_set()) == (Code.UNAVAILABLE, False)
        slow.leave.set()
        await ended.wait()
    assert said == ["answer"]


async def test_calls_that_do_not_end_are_told_why() -> None:
    slow, closing, ended, said = Slow(), Closing("enough"), trio.Event(), list[str]()
    async with served(slow.services, closing, ended) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(waited, channel, said)
        await slow.begun.wait()
        closing.begun.set()
        closing.over.set()
        await ended.wait()
    assert said == ["UNAVAILABLE: enough"]


async def test_who_does_not_call_is_let_go_at_once() -> None:
    closing, ended = Closing("enough"), trio.Event()
    async with served(Slow().services, closing, ended):
        await trio.testing.wait_all_tasks_blocked()
        closing.begun.set()
        await ended.wait()


async def test_who_answers_stays(autojump_clock: trio.testing.MockClock) -> None:
    ended = trio.Event()
    async with served(Slow().services, Closing(""), ended):
        await trio.sleep(3 * (SILENCE + ANSWER))
        assert not ended.is_set()


async def test_who_does_not_answer_has_gone(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, Slow().services)
        await ours.send_all(PREFACE)
    assert trio.current_time() - began == SILENCE + ANSWER


async def test_who_says_no_more_still_hears_the_settings(tmp_path: Path) -> None:
    """buildctl's dial-stdio ends so, with what stood in a file."""
    async with listening(tmp_path / "socket", Slow().services):
        for _ in range(20):  # which of the server's tasks is the first differs
            with trio.socket.socket(trio.socket.AF_UNIX) as client:
                await client.connect(str(tmp_path / "socket"))
                await client.send(PREFACE)
                client.shutdown(trio.socket.SHUT_WR)
                heard = b"".join([data async for data in trio.SocketStream(client)])
            assert frames(heard)[0].kind == framing.SETTINGS


async def test_a_host_that_has_gone_is_noticed() -> None:
    """The kernel's part of it: every connection has it from its listener."""
    free = free_port()
    (listener,) = bind([f"tcp://127.0.0.1:{free}"], Access(uid=0, gid=0), None, {})
    try:
        listener.listen()
        with socket.create_connection(("127.0.0.1", free)):
            stream = await listener.accept()
            assert isinstance(stream, trio.SocketStream)
            async with stream:
                options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                idle, again, questions = (stream.socket.getsockopt(socket.IPPROTO_TCP, each) for each in options)
                assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert idle + again * questions <= 60
                assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
    finally:
        listener.close()
