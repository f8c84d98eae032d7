"""One build's session: the outer call to the daemon, and inside it whatever the build may ask of its client.

Facts: BuildKit session/session.go (the metadata), session/grpchijack (bytes in messages).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from buildengine.api import rpc
from buildengine.api.control_pb2 import BytesMessage
from buildengine.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from buildengine.api.rpc import Metadata, RpcError, ServerCall
from buildengine.builder import BuildRequest
from buildengine.client.auth import Auth, Logins
from buildengine.client.connection import Connection, Stream
from buildengine.client.directories import Directory, DiskDirectory, Files
from buildengine.client.filesync import FILE_SEND, FileSend, FileSync
from buildengine.client.secrets import Secrets
from buildengine.client.serving import serve
from buildengine.client.ssh import SshAgents
from buildengine.client.upload import Upload
from buildengine.values import dataclass

if TYPE_CHECKING:
    from buildengine.client.layout import LayoutTarget
    from buildengine.client.stores import Stores

_SESSION = "/moby.buildkit.v1.Control/Session"
_EXPOSED = "x-docker-expose-session"
_CHUNK = 1 << 20  # bytes of one message: grpc-go takes 4 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a client offers to one build."""

    methods: rpc.Services
    exports: FileSend
    stores: Stores | None = None

    def find(self, path: str, metadata: Metadata) -> rpc.Method[Any, Any] | None:
        if path == FILE_SEND and self.exports.takes_any:
            return self.exports.method(metadata)
        if self.stores is not None and path in self.stores.paths:
            return self.stores.method(path, metadata)
        return self.methods.get(path)

    @property
    def paths(self) -> tuple[str, ...]:
        of_stores = () if self.stores is None else self.stores.paths
        return (*self.methods, *of_stores, *([FILE_SEND] if self.exports.takes_any else []))


def offer(
    request: BuildRequest,
    layouts: Mapping[int, LayoutTarget],
    *,
    logins: Logins | None,
    environment: Mapping[str, str],
    stdout: int,
) -> Offered:
    """Everything that the request's build may ask for. Nothing is read before it does. `layouts` are by export."""
    return Offered(
        methods=rpc.merged(
            FileSync(directories_of(request)).services,
            Secrets(request.secrets, environment).services,
            SshAgents(request.ssh).services,
            Auth(logins).services if logins is not None else {},
            _upload(request),
            _HEALTH,
        ),
        exports=FileSend(request.exports, stdout),
        stores=_stores(request, layouts),
    )


def _stores(request: BuildRequest, layouts: Mapping[int, LayoutTarget]) -> Stores | None:
    if not request.layouts and not layouts:
        return None
    from buildengine.client.stores import Stores

    return Stores(request.layouts, {number: layout.services for number, layout in layouts.items()})


def _upload(request: BuildRequest) -> rpc.Services:
    return {} if request.context_archive is None else Upload(f"/{request.ref}", request.context_archive).services


def offer_logins(logins: Logins) -> Offered:
    """The user's logins alone, for a push or a pull."""
    return Offered(methods=rpc.merged(Auth(logins).services, _HEALTH), exports=FileSend((), 1))


def directories_of(request: BuildRequest) -> Mapping[str, Directory]:
    """A Dockerfile from standard input is a directory of its own; without a context there is an empty one."""
    found: dict[str, Directory] = {name: DiskDirectory(name, path) for name, path in request.directories.items()}
    if request.inline_dockerfile is not None:
        filename = request.options.get("filename", "Dockerfile")
        found["dockerfile"] = Files({filename: request.inline_dockerfile})
    if "context" not in request.options:
        found.setdefault("context", Files())
    return found


def shared_key(request: BuildRequest) -> str:
    """Builds with the same one share what the daemon keeps of their directories: those of this host's same paths."""
    directories = directories_of(request)
    named = [f"{name}={directory.key}" for name, directory in sorted(directories.items())]
    return hashlib.sha256("\0".join([os.uname().nodename, *named]).encode(errors="surrogateescape")).hexdigest()


@asynccontextmanager
async def session(connection: Connection, offered: Offered, key: str, id: str = "") -> AsyncIterator[str]:
    """Its id, a new one unless it is given. The session lives as long as the block."""
    id = id or os.urandom(16).hex()
    metadata = (
        (f"{_EXPOSED}-uuid", id),
        (f"{_EXPOSED}-sharedkey", key),
        *((f"{_EXPOSED}-grpc-method", path) for path in offered.paths),
    )
    async with connection.stream(_SESSION, BytesMessage, metadata) as stream:
        serving = asyncio.create_task(serve(_Tunnel(stream), offered))
        try:
            yield id
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


class _Tunnel:
    """`serving.Bytes` inside the messages of a call."""

    def __init__(self, stream: Stream[BytesMessage]) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        """What has gone wrong the build's own call will tell."""
        try:
            while (message := await self._stream.receive()) is not None:
                if message.data:
                    return message.data
        except RpcError:
            pass
        return b""

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK):
            await self._stream.send(BytesMessage(data=data[start : start + _CHUNK]))


async def _healthy(
    request: HealthCheckRequest, call: ServerCall[HealthCheckRequest, HealthCheckResponse]
) -> HealthCheckResponse:
    return HealthCheckResponse(status=HealthCheckResponse.SERVING)


_HEALTH = rpc.service("grpc.health.v1.Health", {"Check": rpc.unary(HealthCheckRequest, HealthCheckResponse, _healthy)})
