"""The content stores of a client: where the blobs of an OCI layout go that it keeps itself, and whence others come.

containerd's content service, served by the client. Which of its stores is meant is in the metadata of a call: the one
for exports is called `export`, a layout to build from `oci:NAME`. The client writes the index of what is exported, from
the descriptor that the build answers with.

Facts: BuildKit session/content/caller.go, exporter/oci/export.go, source/containerimage/ocilayout.go; containerd
plugins/content/proxy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO

from buildengine.api import content_pb2 as pb
from buildengine.api.content import EXPORT, EXPORT_ID, INFO, LAYOUT, READ, STORE_ID, WRITE
from buildengine.api.rpc import ClientCall, Code, Metadata, RpcError
from buildengine.api.sessions import ClientSession
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.limits import DISK, offload
from worker.layers.outcome import one_error

_CHUNK = 1 << 20  # bytes of one message; grpc-go takes 4 MiB

_Stream = ClientCall[pb.WriteContentRequest, pb.WriteContentResponse]


class ClientStore:
    """A `worker.session.BlobSink`. `find` gives the client's session.

    BuildKit's clients have one such store a build; ours look at the number of the export too.
    """

    def __init__(self, find: Callable[[], Awaitable[ClientSession]], export_id: int = 0) -> None:
        self._find = find
        self._metadata: Metadata = ((STORE_ID, EXPORT), (EXPORT_ID, str(export_id)))

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


class ClientLayout:
    """A `worker.session.BlobSource`: the layout that the client calls `store`. `find` gives the client's session."""

    def __init__(self, find: Callable[[], Awaitable[ClientSession]], store: str) -> None:
        self._find = find
        self._store = store

    @asynccontextmanager
    async def open(self, digest: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        session = await self._find()
        request = pb.ReadContentRequest(digest=digest)
        metadata: Metadata = ((STORE_ID, f"{LAYOUT}{self._store}"),)
        failure = f"the client's OCI layout {self._store!r}: blob {digest}"
        call = session.channel.stream(READ, pb.ReadContentRequest, pb.ReadContentResponse, metadata=metadata)
        try:
            with one_error():
                async with call as stream:
                    await stream.send(request)
                    await stream.half_close()
                    yield _read(stream)
        except RpcError as error:
            raise SourceError(f"{failure}: {error.message}") from error


async def _read(stream: ClientCall[pb.ReadContentRequest, pb.ReadContentResponse]) -> AsyncIterator[bytes]:
    while (message := await stream.receive()) is not None:
        yield message.data


async def _answered(stream: _Stream, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
    await stream.send(request)
    answer = await stream.receive()
    if answer is None:
        raise SourceError("the client ended the write of a blob early")
    return answer
