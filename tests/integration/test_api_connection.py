"""Both sides ours: streams that break, cancellation, what must not be left, a connection inside of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from buildengine.api import connection, rpc
from buildengine.api.connection import open_channel, serve_connection
from buildengine.api.h2settings import MAX_CALLS
from buildengine.api.rpc import Channel, Code, RpcError
from tests.fakes.rpc_services import Served


@asynccontextmanager
async def connected(services: rpc.Services) -> AsyncIterator[tuple[Channel, trio.StapledStream[Any, Any]]]:
    """A channel to our server; the server's end of the stream, to break it. The server has ended afterwards."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, services)
        async with ours, open_channel(ours) as channel:
            yield channel, theirs


async def test_a_block_that_fails_fails_with_its_own_error() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(KeyError):
        async with open_channel(ours):
            raise KeyError("mine")


async def test_what_a_block_cancels_stays_cancelled() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        async with open_channel(ours) as channel:
            scope.cancel()
            await channel.unary("/t.T/Echo", BytesValue(), BytesValue)
    assert scope.cancelled_caught


async def test_cancelling_a_call_ends_its_handler_and_nothing_else() -> None:
    served = Served()
    async with connected(served.services) as (channel, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.unary, "/t.T/Hang", BytesValue(), BytesValue)
            await served.begun.wait()
            nursery.cancel_scope.cancel()
        await served.cancelled.wait()
        assert await channel.unary("/t.T/Echo", BytesValue(value=b"x"), BytesValue) == BytesValue(value=b"x")


async def test_a_stream_that_breaks_fails_every_call() -> None:
    served = Served()
    codes: list[Code] = []
    async with connected(served.services) as (channel, theirs), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.T/Hang", BytesValue(), BytesValue)
            codes.append(caught.value.code)

        for _ in range(5):
            nursery.start_soon(call)
        await served.begun.wait()
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()
    assert codes == [Code.UNAVAILABLE] * 5
    assert served.cancelled.is_set()


async def test_a_call_on_a_broken_stream_is_unavailable_at_once() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_channel(ours) as channel:
        await theirs.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.T/Echo", BytesValue(), BytesValue)
        assert caught.value.code == Code.UNAVAILABLE


async def test_handlers_learn_that_their_caller_has_gone() -> None:
    learned: list[Code] = []
    begun = trio.Event()

    async def stubborn(call: rpc.ServerCall[BytesValue, BytesValue]) -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            for use in (call.receive, lambda: call.send(BytesValue())):
                with pytest.raises(RpcError) as caught:
                    await use()
                learned.append(caught.value.code)

    services = rpc.service("t.T", {"Stubborn": rpc.stream(BytesValue, BytesValue, stubborn)})
    async with connected(services) as (channel, _), channel.stream("/t.T/Stubborn", BytesValue, BytesValue):
        await begun.wait()
    assert learned == [Code.CANCELLED] * 2


async def test_handlers_that_fail_as_they_are_cancelled_harm_no_one_else() -> None:
    begun = trio.Event()

    async def fails_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("late")

    async def handler(call: rpc.ServerCall[BytesValue, BytesValue]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_late)
            begun.set()
            await trio.sleep_forever()

    services = rpc.merged(rpc.service("t.S", {"Late": rpc.stream(BytesValue, BytesValue, handler)}), Served().services)
    async with connected(services) as (channel, _):
        async with channel.stream("/t.S/Late", BytesValue, BytesValue):
            await begun.wait()
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.S/Late", BytesValue(), BytesValue, timeout=0.01)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        assert await channel.unary("/t.T/Echo", BytesValue(), BytesValue) == BytesValue()


async def test_handlers_that_fail_as_the_connection_ends_are_not_heard() -> None:
    begun = trio.Event()

    async def fails_late(call: rpc.ServerCall[BytesValue, BytesValue]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                begun.set()
                await trio.sleep_forever()
            finally:
                raise KeyError("late")

    ours, theirs = trio.testing.memory_stream_pair()
    services = rpc.service("t.S", {"Late": rpc.stream(BytesValue, BytesValue, fails_late)})
    scope = trio.CancelScope()

    async def serve() -> None:
        async with theirs:
            with scope:
                await serve_connection(theirs, services)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_channel(ours) as channel, channel.stream("/t.S/Late", BytesValue, BytesValue) as call:
            await begun.wait()
            scope.cancel()
            with pytest.raises(RpcError) as caught:
                await call.receive()
            assert caught.value.code == Code.UNAVAILABLE


async def test_handlers_that_do_not_end_are_bounded() -> None:
    """Each whose caller has gone counts until it has ended (CVE-2023-44487)."""
    leave = trio.Event()

    async def stubborn(call: rpc.ServerCall[BytesValue, BytesValue]) -> None:
        with trio.CancelScope(shield=True):
            await leave.wait()

    services = rpc.service("t.T", {"Stubborn": rpc.stream(BytesValue, BytesValue, stubborn)})
    async with connected(services) as (channel, _):
        for _ in range(MAX_CALLS):
            async with channel.stream("/t.T/Stubborn", BytesValue, BytesValue):
                pass
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.T/Stubborn", BytesValue(), BytesValue)
        assert caught.value.code == Code.RESOURCE_EXHAUSTED
        leave.set()


async def test_a_server_that_is_cancelled_leaves_no_task() -> None:
    served = Served()
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_channel(ours) as channel, trio.open_nursery() as calls:

        async def call() -> None:
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.T/Hang", BytesValue(), BytesValue)
            assert caught.value.code == Code.UNAVAILABLE

        calls.start_soon(call)
        async with theirs, trio.open_nursery() as nursery:
            nursery.start_soon(serve_connection, theirs, served.services)
            await served.begun.wait()
            nursery.cancel_scope.cancel()
        assert served.cancelled.is_set()


async def test_noise_instead_of_a_call_is_told_why_and_ends() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, {})
        await ours.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x09\x00\0\0\0\0" * 3)
    assert len(await ours.receive_some()) > 0  # SETTINGS and GOAWAY: serve_connection has returned by itself


async def test_several_tasks_send_on_one_call() -> None:
    async with (
        connected(Served().services) as (channel, _),
        channel.stream("/t.T/Count", BytesValue, Int64Value) as call,
    ):

        async def send() -> None:
            for _ in range(20):
                await call.send(BytesValue(value=b"x" * 100_000))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
        await call.half_close()
        assert await call.receive() == Int64Value(value=100)


async def test_a_sender_waits_for_its_reader() -> None:
    sent = 0
    go = trio.Event()

    async def slow(call: rpc.ServerCall[BytesValue, BytesValue]) -> None:
        await go.wait()
        while await call.receive() is not None:
            pass

    services = rpc.service("t.T", {"Slow": rpc.stream(BytesValue, BytesValue, slow)})
    async with (
        connected(services) as (channel, _),
        trio.open_nursery() as nursery,
        channel.stream("/t.T/Slow", BytesValue, BytesValue) as call,
    ):

        async def send() -> None:
            nonlocal sent
            for _ in range(100):
                await call.send(BytesValue(value=b"x" * 100_000))
                sent += 1
            await call.half_close()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert 40 <= sent <= 45  # 4 MiB and what waits to be written
        go.set()
        assert await call.receive() is None
    assert sent == 100


async def test_two_thousand_calls_leave_nothing() -> None:
    async with connected(Served().services) as (channel, _):

        async def some() -> None:
            for number in range(100):
                await channel.unary("/t.T/Echo", Int64Value(value=number), Int64Value)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(some)
        held: Any = channel
        assert held.core.calls == 0


class Tunnel(trio.abc.HalfCloseableStream):
    """A byte stream in the messages of a call, of either side."""

    def __init__(self, call: rpc.ServerCall[BytesValue, BytesValue] | rpc.ClientCall[BytesValue, BytesValue]) -> None:
        self._call = call

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._call.send(BytesValue(value=bytes(data)))
        except RpcError as error:
            raise trio.BrokenResourceError from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            message = await self._call.receive()
        except RpcError as error:
            raise trio.BrokenResourceError from error
        return b"" if message is None else message.value

    async def wait_send_all_might_not_block(self) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


async def test_a_connection_inside_of_a_call() -> None:
    """As the sessions of clients are: they call, and are called on a stream of that call."""
    answers: list[int] = []

    async def session(call: rpc.ServerCall[BytesValue, BytesValue]) -> None:
        async with (
            open_channel(Tunnel(call)) as channel,
            channel.stream("/t.T/Count", BytesValue, Int64Value) as count,
        ):
            for _ in range(1000):
                await count.send(BytesValue(value=b"x" * 1000))
            await count.half_close()
            answers.append((await count.receive() or Int64Value()).value)

    services = rpc.service("t.S", {"Session": rpc.stream(BytesValue, BytesValue, session)})
    async with connected(services) as (channel, _), channel.stream("/t.S/Session", BytesValue, BytesValue) as call:
        await serve_connection(Tunnel(call), Served().services)
    assert answers == [1000]


async def test_requests_that_are_being_served_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would be too much is refused; when others have ended there is room again."""
    monkeypatch.setattr(connection, "MAX_SERVED", 3 << 20)
    large = BytesValue(value=bytes(1 << 20))
    async with connected(Served().services) as (channel, _):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(channel.unary, "/t.T/Hang", large, BytesValue)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(RpcError, match="too many large requests") as caught:
                await channel.unary("/t.T/Fail", large, BytesValue)
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RpcError, match="not so"):
            await channel.unary("/t.T/Fail", large, BytesValue)
