"""A daemon of grpc.aio for the client's own tests: it answers what a test says, on a unix socket, in the test's loop.

async with aio_daemon(tmp_path, {"/pybuild.v1.Images/List": answer}) as address: ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

Method = Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], AsyncIterator[bytes]]
"""Of any kind, as a stream both ways of messages in bytes."""


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = self._methods.get(details.method)
        if method is not None:
            return grpc.stream_stream_rpc_method_handler(method)
        service = details.method.split("/")[1]
        if any(known.split("/")[1] == service for known in self._methods):
            return None  # "Method not found!"
        return grpc.stream_stream_rpc_method_handler(_unknown(service))


def _unknown(service: str) -> Method:
    async def method(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown service {service}")  # grpc-go's words
        yield b""

    return method


@asynccontextmanager
async def aio_daemon(place: Path, methods: Mapping[str, Method]) -> AsyncIterator[str]:
    """Its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Methods(methods),))
    server.add_insecure_port(f"unix:{place}/fake.sock")
    await server.start()
    try:
        yield f"unix://{place}/fake.sock"
    finally:
        await server.stop(None)
