"""The content store of a client: where the blobs of an OCI layout go that it keeps itself.

containerd's content service, served by the client. Which of its stores is meant is in the metadata of a call; the one
for exports is called `export`. The client writes the layout's index, from the descriptor that the build answers with.

Facts: BuildKit session/content/caller.go, exporter/oci/export.go; containerd plugins/content/proxy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import BinaryIO

from buildengine.api import content_pb2 as pb
from buildengine.api.rpc import ClientCall, Code, Metadata, RpcError
from buildengine.api.sessions import ClientSession
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.limits import DISK, offload
from worker.layers.outcome import one_error

EXPORT = "export"
_SERVICE = "/containerd.services.content.v1.Content"
INFO, WRITE = f"{_SERVICE}/Info", f"{_SERVICE}/Write"
_STORE_ID = "buildkit-attachable-store-id"
_CHUNK = 1 << 20  # bytes of one message; grpc-go takes 4 MiB

_Stream = ClientCall[pb.WriteContentRequest, pb.WriteContentResponse]


class ClientStore:
    """A `worker.session.BlobSink`. `find` gives the client's session."""

    def __init__(self, find: Callable[[], Awaitable[ClientSession]], store: str = EXPORT) -> None:
        self._find = find
        self._metadata: Metadata = ((_STORE_ID, store),)

    async def put(self, digest: Digest, size: int, open: Callable[[], BinaryIO]) -> None:
        """Raises SourceError when the client does not take it."""
        session = await self._find()
        if not session.supports(WRITE):
            raise UserError("the client takes no blobs", hint="give the export a directory, e.g. dest=DIRECTORY")
        try:
            if not await self._has(session, digest):
                await self._write(session, digest, size, open)
        except RpcError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise SourceError(f"the client did not take the blob {digest}: {error.message}") from error

    async def _has(self, session: ClientSession, digest: Digest) -> bool:
        request = pb.InfoRequest(digest=digest)
        try:
            await session.channel.unary(INFO, request, pb.InfoResponse, metadata=self._metadata)
        except RpcError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return False
        return True

    async def _write(self, session: ClientSession, digest: Digest, size: int, open: Callable[[], BinaryIO]) -> None:
        """Each message is answered before the next one."""
        call = session.channel.stream(WRITE, pb.WriteContentRequest, pb.WriteContentResponse, metadata=self._metadata)
        with one_error():
            async with call as stream:
                begin = pb.WriteContentRequest(action=pb.STAT, ref=f"export-{digest}", total=size, expected=digest)
                there, at = (await _answered(stream, begin)).offset, 0  # of a write that was broken off
                with open() as file:
                    while data := await offload(file.read, _CHUNK, limiter=DISK):
                        new = data[max(0, there - at) :]
                        at += len(data)
                        if new:
                            part = pb.WriteContentRequest(action=pb.WRITE, offset=at - len(new), data=new)
                            await _answered(stream, part)
                end = pb.WriteContentRequest(action=pb.COMMIT, offset=size, total=size, expected=digest)
                await _answered(stream, end)
                await stream.half_close()
                while await stream.receive() is not None:
                    pass


async def _answered(stream: _Stream, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
    await stream.send(request)
    answer = await stream.receive()
    if answer is None:
        raise SourceError("the client ended the write of a blob early")
    return answer
