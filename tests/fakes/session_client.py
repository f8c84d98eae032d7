"""A client of the build API whose services grpcio serves: a grpcio channel makes the outer call, a grpcio server
answers inside it, and threads carry the bytes between the two. Nothing of it is ours but the messages.
"""

from __future__ import annotations

import queue
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from buildengine.api.control_pb2 import BytesMessage
from buildengine.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from buildengine.api.wire_pb2 import Packet

Handlers = Mapping[str, grpc.RpcMethodHandler]
"""By method path."""


def unary(request: type[Message], function: Callable[[Any, grpc.ServicerContext], Message]) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(function, request.FromString, lambda answer: answer.SerializeToString())


def stream(
    request: type[Message], function: Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Message]]
) -> grpc.RpcMethodHandler:
    return grpc.stream_stream_rpc_method_handler(
        function, request.FromString, lambda answer: answer.SerializeToString()
    )


def healthy() -> Handlers:
    answer = HealthCheckResponse(status=HealthCheckResponse.SERVING)
    return {"/grpc.health.v1.Health/Check": unary(HealthCheckRequest, lambda request, context: answer)}


def send_files(root: Path, asked: list[dict[str, list[str]]], name: str = "context") -> grpc.RpcMethodHandler:
    """A sender of plain files and directories, written for this test from the protocol's description."""

    def diff_copy(packets: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        metadata: dict[str, list[str]] = {}
        for key, value in context.invocation_metadata():
            metadata.setdefault(key, []).append(value)
        asked.append(metadata)
        if metadata["dir-name"] != [name]:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no access allowed to dir {metadata['dir-name'][0]!r}")
        paths = sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts)
        for path in paths:
            info, packet = path.stat(), Packet(type=Packet.PACKET_STAT)
            packet.stat.path = str(path.relative_to(root))
            packet.stat.mode = stat.S_IMODE(info.st_mode) | (1 << 31 if path.is_dir() else 0)
            packet.stat.size, packet.stat.modTime = info.st_size, info.st_mtime_ns
            yield packet
        yield Packet(type=Packet.PACKET_STAT)
        for packet in packets:
            if packet.type == Packet.PACKET_FIN:
                yield packet
                return
            if content := paths[packet.ID].read_bytes():
                yield Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=content)
            yield Packet(type=Packet.PACKET_DATA, ID=packet.ID)

    return stream(Packet, diff_copy)


class _Paths(grpc.GenericRpcHandler):
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


class SessionClient:
    """`close` it like a client that ends well."""

    def __init__(self, daemon: Path, directory: Path, handlers: Handlers, *, id: str, shared_key: str) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((_Paths({**healthy(), **handlers}),))
        self._server.add_insecure_port(f"unix:{directory}/services")
        self._server.start()
        self._bytes = socket.socket(socket.AF_UNIX)
        self._bytes.connect(f"{directory}/services")
        self._outgoing: queue.Queue[bytes] = queue.Queue()
        self._channel = grpc.insecure_channel(f"unix:{daemon}")
        call = self._channel.stream_stream(
            "/moby.buildkit.v1.Control/Session", BytesMessage.SerializeToString, BytesMessage.FromString
        )
        metadata = [
            ("x-docker-expose-session-uuid", id),
            ("x-docker-expose-session-sharedkey", shared_key),
            *(("x-docker-expose-session-grpc-method", path) for path in handlers),
        ]
        self._call = call(self._messages(), metadata=metadata)
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._write)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._outgoing.put(b"")
        self._bytes.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._bytes.close()
        self._channel.close()
        self._server.stop(None).wait()

    def vanish(self) -> None:
        """As a client that is killed."""
        self._call.cancel()

    def _messages(self) -> Iterator[BytesMessage]:
        while data := self._outgoing.get():
            yield BytesMessage(data=data)

    def _read(self) -> None:
        """What the server says goes out."""
        while data := self._bytes.recv(32 << 10):
            self._outgoing.put(data)
        self._outgoing.put(b"")

    def _write(self) -> None:
        try:
            for message in self._call:
                self._bytes.sendall(message.data)
        except (grpc.RpcError, OSError):
            self._bytes.shutdown(socket.SHUT_RDWR)


@contextmanager
def session_client(
    daemon: Path, directory: Path, handlers: Handlers, *, id: str = "one", shared_key: str = ""
) -> Iterator[SessionClient]:
    client = SessionClient(daemon, directory, handlers, id=id, shared_key=shared_key)
    try:
        yield client
    finally:
        client.close()
