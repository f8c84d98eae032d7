"""Our client before grpcio's server."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value
from google.rpc import status_pb2

from buildengine.api.connection import open_channel
from buildengine.api.rpc import Channel, Code, RpcError
from tests.fakes.rpc_services import DETAIL, grpcio_server


def handler(shape: str, function: Any, request: Any = BytesValue) -> Any:
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    return make(
        function,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


@asynccontextmanager
async def calling(path: Path) -> AsyncIterator[Channel]:
    async with await trio.open_unix_socket(path) as stream, open_channel(stream) as channel:
        yield channel


async def test_calls_of_every_shape(tmp_path: Path) -> None:
    methods = {
        "Unary": handler("unary_unary", lambda request, context: request),
        "Source": handler("unary_stream", lambda request, context: iter([request] * 500)),
        "Count": handler("stream_unary", lambda requests, context: Int64Value(value=sum(1 for _ in requests))),
        "Echo": handler("stream_stream", lambda requests, context: requests),
    }
    with grpcio_server(tmp_path / "s", methods):
        async with calling(tmp_path / "s") as channel:
            asked = BytesValue(value=b"x" * 1000)
            assert await channel.unary("/t.T/Unary", asked, BytesValue) == asked
            async with channel.stream("/t.T/Source", BytesValue, BytesValue) as source:
                await source.send(asked)
                await source.half_close()
                count = 0
                while await source.receive() is not None:
                    count += 1
            assert count == 500
            async with channel.stream("/t.T/Count", BytesValue, Int64Value) as counter:
                for _ in range(500):
                    await counter.send(asked)
                await counter.half_close()
                assert await counter.receive() == Int64Value(value=500)
                assert await counter.receive() is None
            async with channel.stream("/t.T/Echo", BytesValue, BytesValue) as echo:
                for n in range(100):
                    await echo.send(BytesValue(value=b"%d" % n))
                    assert await echo.receive() == BytesValue(value=b"%d" % n)
                await echo.half_close()
                assert await echo.receive() is None


async def test_metadata_and_deadline_are_told(tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    def answer(request: BytesValue, context: grpc.ServicerContext) -> BytesValue:
        told.update(remaining=context.time_remaining(), metadata=context.invocation_metadata())
        context.send_initial_metadata((("x-back", "here"), ("x-back-bin", b"\xff")))
        return request

    with grpcio_server(tmp_path / "s", {"Echo": handler("unary_unary", answer)}):
        async with calling(tmp_path / "s") as channel:
            metadata = (("x-text", "value"), ("x-raw-bin", b"\x00\xff"))
            await channel.unary("/t.T/Echo", BytesValue(), BytesValue, metadata=metadata, timeout=30)
            async with channel.stream("/t.T/Echo", BytesValue, BytesValue, metadata=metadata) as call:
                await call.send(BytesValue())
                await call.half_close()
                assert await call.initial_metadata() == (("x-back", "here"), ("x-back-bin", b"\xff"))
                assert await call.receive() == BytesValue()
    assert {("x-text", "value"), ("x-raw-bin", b"\x00\xff")} <= {tuple(pair) for pair in told["metadata"]}


async def test_an_error_has_its_details(tmp_path: Path) -> None:
    status = status_pb2.Status(
        code=10, message="not so", details=[AnyMessage(type_url=DETAIL.type_url, value=DETAIL.value)]
    )

    def fail(request: BytesValue, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.ABORTED, "not so: ö\n100%")

    with grpcio_server(tmp_path / "s", {"Fail": handler("unary_unary", fail)}):
        async with calling(tmp_path / "s") as channel:
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.T/Fail", BytesValue(), BytesValue)
            assert (caught.value.code, caught.value.message) == (Code.ABORTED, "not so: ö\n100%")
            assert caught.value.details == (DETAIL,)
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.T/Absent", BytesValue(), BytesValue)
            assert caught.value.code == Code.UNIMPLEMENTED


async def test_a_large_message_both_ways(tmp_path: Path) -> None:
    with grpcio_server(tmp_path / "s", {"Echo": handler("unary_unary", lambda request, context: request)}):
        async with calling(tmp_path / "s") as channel:
            large = BytesValue(value=b"x" * (15 << 20))
            assert await channel.unary("/t.T/Echo", large, BytesValue) == large
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.T/Echo", BytesValue(value=b"x" * (16 << 20)), BytesValue)
            assert caught.value.code == Code.RESOURCE_EXHAUSTED


async def test_more_calls_than_the_server_takes_at_a_time(tmp_path: Path) -> None:
    """grpcio's server says 50; the others wait their turn."""
    answers: list[int] = []
    with grpcio_server(tmp_path / "s", {"Echo": handler("unary_unary", lambda request, context: request)}):
        async with calling(tmp_path / "s") as channel, trio.open_nursery() as nursery:

            async def call(number: int) -> None:
                answer = await channel.unary("/t.T/Echo", Int64Value(value=number), Int64Value)
                answers.append(answer.value)

            for number in range(300):
                nursery.start_soon(call, number)
    assert sorted(answers) == list(range(300))


@pytest.fixture
def ended() -> threading.Event:
    return threading.Event()


def hanging(begun: threading.Event, ended: threading.Event) -> Any:
    def hang(request: BytesValue, context: grpc.ServicerContext) -> BytesValue:
        context.add_callback(ended.set)
        begun.set()
        ended.wait(30)
        return request

    return handler("unary_unary", hang)


async def test_a_deadline_ends_the_call(tmp_path: Path, ended: threading.Event) -> None:
    with grpcio_server(tmp_path / "s", {"Hang": hanging(threading.Event(), ended)}):
        async with calling(tmp_path / "s") as channel:
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.T/Hang", BytesValue(), BytesValue, timeout=0.2)
            assert caught.value.code == Code.DEADLINE_EXCEEDED
            assert await trio.to_thread.run_sync(ended.wait, 30)


async def test_leaving_the_block_cancels_the_call(tmp_path: Path, ended: threading.Event) -> None:
    begun = threading.Event()
    with grpcio_server(tmp_path / "s", {"Hang": hanging(begun, ended)}):
        async with calling(tmp_path / "s") as channel:
            async with channel.stream("/t.T/Hang", BytesValue, BytesValue) as call:
                await call.send(BytesValue())
                await trio.to_thread.run_sync(begun.wait, 30)
            assert await trio.to_thread.run_sync(ended.wait, 30)


async def test_a_slow_reader_holds_the_server(tmp_path: Path) -> None:
    sent = 0

    def source(request: BytesValue, context: grpc.ServicerContext) -> Iterator[BytesValue]:
        nonlocal sent
        for _ in range(40):
            sent += 1
            yield BytesValue(value=b"x" * (1 << 20))

    with grpcio_server(tmp_path / "s", {"Source": handler("unary_stream", source)}):
        async with (
            calling(tmp_path / "s") as channel,
            channel.stream("/t.T/Source", BytesValue, BytesValue) as call,
        ):
            await call.send(BytesValue())
            await call.half_close()
            await call.receive()
            # The rest may come only as it is taken: the window is 4 MiB, and what grpcio buffers is not much.
            for _ in range(20):
                with pytest.raises(RpcError):  # the server has had the time for as many calls
                    await channel.unary("/t.T/Absent", BytesValue(), BytesValue)
            assert sent < 20
            count = 1
            while await call.receive() is not None:
                count += 1
    assert count == 40


async def test_a_server_that_leaves_in_peace_ends_its_calls_well(tmp_path: Path) -> None:
    begun, leave = threading.Event(), threading.Event()

    def slow(request: BytesValue, context: grpc.ServicerContext) -> BytesValue:
        begun.set()
        leave.wait(30)
        return request

    with grpcio_server(tmp_path / "s", {"Slow": handler("unary_unary", slow)}) as server:
        async with calling(tmp_path / "s") as channel, trio.open_nursery() as nursery:
            answers = []

            async def call() -> None:
                answers.append(await channel.unary("/t.T/Slow", BytesValue(value=b"x"), BytesValue))

            nursery.start_soon(call)
            await trio.to_thread.run_sync(begun.wait, 30)
            server.stop(30)  # GOAWAY: no new calls, those that run may end
            with trio.fail_after(30):
                while True:
                    try:
                        await channel.unary("/t.T/Absent", BytesValue(), BytesValue)
                    except RpcError as error:
                        if error.code == Code.UNAVAILABLE:
                            break
            leave.set()
    assert answers == [BytesValue(value=b"x")]


async def test_calls_fail_when_the_server_is_gone(tmp_path: Path, ended: threading.Event) -> None:
    begun = threading.Event()
    with grpcio_server(tmp_path / "s", {"Hang": hanging(begun, ended)}) as server:
        async with calling(tmp_path / "s") as channel, trio.open_nursery() as nursery:
            caught = []

            async def call() -> None:
                with pytest.raises(RpcError) as error:
                    await channel.unary("/t.T/Hang", BytesValue(), BytesValue)
                caught.append(error.value.code)

            nursery.start_soon(call)
            await trio.to_thread.run_sync(begun.wait, 30)
            server.stop(None)
    assert caught[0] in {Code.UNAVAILABLE, Code.CANCELLED}
