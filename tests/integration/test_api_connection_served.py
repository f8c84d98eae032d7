"""Our server before grpcio's client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value
from google.rpc import status_pb2

from buildengine.api.health import Health
from buildengine.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from buildengine.api.reflection import reflection
from buildengine.api.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from buildengine.api.rpc import MAX_MESSAGE, merged
from tests.fakes.rpc_services import DETAIL, Served, grpcio_call, grpcio_channel, listening


async def with_grpcio(path: Path, served: Served, use: Any) -> Any:
    """What `use(channel)` returns, in a thread, with our services listening."""

    def call() -> Any:
        with grpcio_channel(path) as channel:
            return use(channel)

    async with listening(path, served.services):
        return await trio.to_thread.run_sync(call)


async def test_a_unary_call(tmp_path: Path) -> None:
    answer = await with_grpcio(
        tmp_path / "s", Served(), lambda channel: grpcio_call(channel, "Echo")(BytesValue(value=b"hello"))
    )
    assert answer == BytesValue(value=b"hello")


async def test_metadata_both_ways(tmp_path: Path) -> None:
    sent = (("x-text", "value"), ("x-raw-bin", b"\x00\xff"), ("x-text", "again"), ("other", "stays"))

    def use(channel: Any) -> Any:
        answer, call = grpcio_call(channel, "Metadata").with_call(BytesValue(), metadata=sent)
        return answer.value, [tuple(pair) for pair in call.initial_metadata()]

    path, metadata = await with_grpcio(tmp_path / "s", Served(), use)
    assert path == b"/t.T/Metadata"
    assert sorted(metadata) == sorted(sent[:3])


def failed(channel: Any, method: str, request: bytes = b"", **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        grpcio_call(channel, method)(BytesValue(value=request), **options)
    return caught.value


async def test_an_error_has_its_details(tmp_path: Path) -> None:
    error: Any = await with_grpcio(tmp_path / "s", Served(), lambda channel: failed(channel, "Fail"))
    assert error.code() == grpc.StatusCode.ABORTED
    assert error.details() == "not so: ö\n100%"
    ((name, value),) = error.trailing_metadata()
    assert name == "grpc-status-details-bin"
    status = status_pb2.Status.FromString(value)
    assert (status.code, status.message) == (10, "not so: ö\n100%")
    assert [(detail.type_url, detail.value) for detail in status.details] == [(DETAIL.type_url, DETAIL.value)]


@pytest.mark.parametrize(
    ("method", "code", "text"),
    [
        ("Absent", grpc.StatusCode.UNIMPLEMENTED, "unknown method Absent for service t.T"),
        ("Refuse", grpc.StatusCode.FAILED_PRECONDITION, "this host has no such thing"),
        ("Break", grpc.StatusCode.INTERNAL, "ZeroDivisionError: our mistake"),
    ],
)
async def test_what_a_handler_raises_is_a_status(tmp_path: Path, method: str, code: grpc.StatusCode, text: str) -> None:
    error: Any = await with_grpcio(tmp_path / "s", Served(), lambda channel: failed(channel, method))
    assert (error.code(), error.details()) == (code, text)


async def test_streams_both_ways(tmp_path: Path) -> None:
    messages = [BytesValue(value=bytes([n % 256]) * n) for n in range(500)]
    answers = await with_grpcio(
        tmp_path / "s",
        Served(),
        lambda channel: list(grpcio_call(channel, "Echo", "stream_stream")(iter(messages))),
    )
    assert answers == messages


async def test_a_caller_that_half_closes_gets_its_answer(tmp_path: Path) -> None:
    answer = await with_grpcio(
        tmp_path / "s",
        Served(),
        lambda channel: grpcio_call(channel, "Count", "stream_unary", Int64Value)(BytesValue() for _ in range(300)),
    )
    assert answer.value == 300


async def test_a_large_stream_to_the_caller(tmp_path: Path) -> None:
    total = await with_grpcio(
        tmp_path / "s",
        Served(),
        lambda channel: sum(
            len(answer.value) for answer in grpcio_call(channel, "Source", "unary_stream")(Int64Value(value=2000))
        ),
    )
    assert total == 20_000_000


async def test_messages_up_to_the_limit(tmp_path: Path) -> None:
    largest = MAX_MESSAGE - 5  # of BytesValue: a tag and four bytes of length

    def use(channel: Any) -> Any:
        answer = grpcio_call(channel, "Echo")(BytesValue(value=b"x" * largest))
        return len(answer.value), failed(channel, "Echo", b"x" * (largest + 1))

    length, error = await with_grpcio(tmp_path / "s", Served(), use)
    assert length == largest
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()


async def test_gzip_of_the_caller_is_read(tmp_path: Path) -> None:
    request = BytesValue(value=b"x" * 100_000)
    answer = await with_grpcio(
        tmp_path / "s",
        Served(),
        lambda channel: grpcio_call(channel, "Echo")(request, compression=grpc.Compression.Gzip),
    )
    assert answer == request


async def test_a_deadline_ends_the_call_on_both_sides(tmp_path: Path) -> None:
    served = Served()
    error: Any = await with_grpcio(tmp_path / "s", served, lambda channel: failed(channel, "Hang", timeout=0.2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert served.cancelled.is_set()


async def test_a_caller_that_cancels_ends_the_handler(tmp_path: Path) -> None:
    served = Served()
    async with listening(tmp_path / "s", served.services):
        with grpcio_channel(tmp_path / "s") as channel:
            call = grpcio_call(channel, "Hang").future(BytesValue())
            await served.begun.wait()
            call.cancel()
            await served.cancelled.wait()


async def test_a_thousand_calls_at_a_time(tmp_path: Path) -> None:
    def use(channel: Any) -> Any:
        calls = [grpcio_call(channel, "Echo").future(BytesValue(value=b"%d" % n)) for n in range(1000)]
        return [call.result().value for call in calls]

    assert await with_grpcio(tmp_path / "s", Served(), use) == [b"%d" % n for n in range(1000)]


async def test_calls_fail_when_the_server_stops(tmp_path: Path) -> None:
    served = Served()
    with grpcio_channel(tmp_path / "s") as channel:
        async with listening(tmp_path / "s", served.services):
            call = grpcio_call(channel, "Hang").future(BytesValue())
            await served.begun.wait()
        error: Any = await trio.to_thread.run_sync(call.exception)
    assert error.code() == grpc.StatusCode.UNAVAILABLE


async def test_health(tmp_path: Path) -> None:
    health = Health("t.T")
    statuses = []

    def watch(channel: Any) -> None:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        statuses.append(check(HealthCheckRequest()).status)
        with pytest.raises(grpc.RpcError) as caught:
            check(HealthCheckRequest(service="absent"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        answers = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )(HealthCheckRequest(service="t.T"))
        statuses.append(next(answers).status)
        trio.from_thread.run_sync(lambda: health.change("t.T", serving=False))
        statuses.append(next(answers).status)
        answers.cancel()

    async with listening(tmp_path / "s", health.services):
        with grpcio_channel(tmp_path / "s") as channel:
            await trio.to_thread.run_sync(watch, channel)
    serving, down = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    assert statuses == [serving, serving, down]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(tmp_path: Path, version: str) -> None:
    services = merged(Health().services, Served().services)
    questions = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        ServerReflectionRequest(file_by_filename="google/rpc/status.proto"),
        ServerReflectionRequest(file_containing_symbol="no.such"),
        ServerReflectionRequest(),
    ]

    def ask(channel: Any) -> list[ServerReflectionResponse]:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        return list(ask(iter(questions)))

    async with listening(tmp_path / "s", merged(services, reflection(services))):
        with grpcio_channel(tmp_path / "s") as channel:
            names, health, status, absent, nothing = await trio.to_thread.run_sync(ask, channel)
    listed = [service.name for service in names.list_services_response.service]
    assert {"t.T", "grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= set(listed)
    assert b"HealthCheckRequest" in health.file_descriptor_response.file_descriptor_proto[0]
    assert len(status.file_descriptor_response.file_descriptor_proto) == 2  # it imports any.proto
    assert absent.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert nothing.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
