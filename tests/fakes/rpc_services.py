"""Services to call in tests, and where they are served: on our side of a stream, or by grpcio."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from buildengine.api import rpc
from buildengine.api.connection import serve_connection
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.errors import HostError

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # its handlers at fork may hang the test that forks

import grpc

DETAIL = Detail(type_url="type.example/why", value=b'{"because": "\xc3\xb6"}')
NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
Call = rpc.ServerCall[BytesValue, BytesValue]


class Served:
    """What happened to the calls that hang."""

    def __init__(self) -> None:
        self.begun, self.cancelled = trio.Event(), trio.Event()

    @property
    def services(self) -> rpc.Services:
        both = (BytesValue, BytesValue)
        return rpc.service(
            "t.T",
            {
                "Echo": rpc.stream(*both, self.echo),
                "Count": rpc.stream(BytesValue, Int64Value, self.count),
                "Source": rpc.server_stream(Int64Value, BytesValue, self.source),
                "Fail": rpc.unary(*both, self.fail),
                "Break": rpc.unary(*both, self.break_down),
                "Refuse": rpc.unary(*both, self.refuse),
                "Metadata": rpc.unary(*both, self.metadata),
                "Hang": rpc.unary(*both, self.hang),
            },
        )

    async def echo(self, call: Call) -> None:
        while (message := await call.receive()) is not None:
            await call.send(message)

    async def count(self, call: rpc.ServerCall[BytesValue, Int64Value]) -> None:
        count = 0
        while await call.receive() is not None:
            count += 1
        await call.send(Int64Value(value=count))

    async def source(self, request: Int64Value, call: rpc.ServerCall[Int64Value, BytesValue]) -> None:
        for _ in range(request.value):
            await call.send(BytesValue(value=b"x" * 10_000))

    async def fail(self, request: BytesValue, call: Call) -> BytesValue:
        raise RpcError(Code.ABORTED, "not so: ö\n100%", (DETAIL,))

    async def break_down(self, request: BytesValue, call: Call) -> BytesValue:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hang, request, call)
            raise ZeroDivisionError("our mistake")

    async def refuse(self, request: BytesValue, call: Call) -> BytesValue:
        async with trio.open_nursery():
            raise HostError("this host has no such thing")

    async def metadata(self, request: BytesValue, call: Call) -> BytesValue:
        await call.send_initial_metadata(tuple((name, value) for name, value in call.metadata if name[:2] == "x-"))
        return BytesValue(value=call.path.encode())

    async def hang(self, request: BytesValue, call: Call) -> BytesValue:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


@asynccontextmanager
async def listening(path: Path, services: rpc.Services) -> AsyncIterator[None]:
    """Our server on a unix socket."""

    async def serve(stream: trio.SocketStream) -> None:
        await serve_connection(stream, services)

    with trio.socket.socket(trio.socket.AF_UNIX) as socket:
        await socket.bind(str(path))
        socket.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(socket)])
            yield
            nursery.cancel_scope.cancel()


@contextmanager
def grpcio_channel(path: Path) -> Iterator[Any]:
    with grpc.insecure_channel(f"unix:{path}", options=NO_LIMIT) as channel:
        yield channel


def grpcio_call(channel: Any, method: str, shape: str = "unary_unary", answer: Any = BytesValue) -> Any:
    """`shape` is as grpcio names it: unary_stream, stream_stream ..."""
    return getattr(channel, shape)(
        f"/t.T/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )


@contextmanager
def grpcio_server(path: Path, methods: dict[str, Any], *, threads: int = 4) -> Iterator[Any]:
    """`methods`: grpcio's handlers by name, as `grpc.unary_unary_rpc_method_handler` makes them."""
    # 50 calls at a time; without its habit of refusing a few before there are so many.
    bounds = (("grpc.max_concurrent_streams", 50), ("grpc.http.overload_protection", 0))
    server = grpc.server(ThreadPoolExecutor(threads), options=(*NO_LIMIT, *bounds))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield server
    finally:
        server.stop(None).wait()
