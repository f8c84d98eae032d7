"""Where the exports of a client elsewhere go: to the client, as one stream or as a directory.

Facts: BuildKit session/filesync/filesync.go (CopyToCaller, CopyFileWriter).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import MappingProxyType

import trio

from buildengine.api.clientstore import ClientStore
from buildengine.api.content import EXPORT_ID
from buildengine.api.filesync_pb2 import BytesMessage
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fssend import send
from buildengine.api.rpc import ClientCall, Code, Metadata, RpcError
from buildengine.api.sessions import ClientSession
from buildengine.errors import SourceError, UserError
from cache.layers import Layers
from worker.layers.outcome import one_error

DIFF_COPY = "/moby.filesync.v1.FileSend/DiffCopy"
_ABOUT = "exporter-md-"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_CHUNK = 1 << 20  # bytes of one message; grpc-go takes 4 MiB

_Stream = ClientCall[BytesMessage, BytesMessage]


class RemoteSinks:
    """`worker.session.Sinks` of one client. `find` gives its session; `layers` room for a directory on its way."""

    def __init__(self, find: Callable[[], Awaitable[ClientSession]], layers: Layers) -> None:
        self._find = find
        self._layers = layers

    def file(self, export_id: int, about: Mapping[str, str] = _NOTHING) -> AbstractAsyncContextManager[int] | None:
        return self._file(export_id, about)

    def directory(self, export_id: int) -> AbstractAsyncContextManager[str] | None:
        return self._directory(export_id)

    def blobs(self, export_id: int) -> ClientStore:
        return ClientStore(self._find, export_id)

    @asynccontextmanager
    async def _file(self, export_id: int, about: Mapping[str, str]) -> AsyncIterator[int]:
        """A pipe; what comes out of it goes to the client. With an error the call is cancelled, not ended."""
        session = await self._target()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # the user's pipes have used up what they may
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _CHUNK)
        source, descriptor = trio.lowlevel.FdStream(reader), _Descriptor(writer)
        try:
            with one_error():
                metadata = _metadata(export_id, about)
                call = session.channel.stream(DIFF_COPY, BytesMessage, BytesMessage, metadata=metadata)
                async with call as stream, trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, source, stream, export_id)
                    yield writer
                    descriptor.close()
        finally:
            descriptor.close()
            await source.aclose()

    @asynccontextmanager
    async def _directory(self, export_id: int) -> AsyncIterator[str]:
        """A directory of the store, sent when it is whole."""
        session = await self._target()
        layer = await self._layers.create(
            (), kind="regular", description=f"export {export_id} on its way to the client"
        )
        try:
            yield str(layer.directory)
            root = os.open(layer.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                call = session.channel.stream(DIFF_COPY, Packet, Packet, metadata=_metadata(export_id))
                async with call as stream:
                    await send(stream, root)
            except RpcError as error:
                raise _failure(export_id, error) from error
            finally:
                os.close(root)
        finally:
            await layer.discard()

    async def _target(self) -> ClientSession:
        session = await self._find()
        if not session.supports(DIFF_COPY):
            raise UserError("the client takes no exports", hint="give the export a destination, e.g. dest=DIRECTORY")
        return session


class _Descriptor:
    """A file descriptor that may be closed twice."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


async def _pump(source: trio.lowlevel.FdStream, stream: _Stream, export_id: int) -> None:
    """Until the writer has closed the pipe and the client has all. Whatever goes wrong, nobody writes in vain."""
    async with source:
        try:
            while data := await source.receive_some(_CHUNK):
                await stream.send(BytesMessage(data=bytes(data)))
            await stream.half_close()
            while await stream.receive() is not None:
                pass
        except RpcError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise _failure(export_id, error) from error
            while await source.receive_some(_CHUNK):  # the client has it already: what is written is not needed
                pass


def _failure(export_id: int, error: RpcError) -> SourceError:
    return SourceError(f"the client did not take export {export_id}: {error.message}")


def _metadata(export_id: int, about: Mapping[str, str] = _NOTHING) -> Metadata:
    return ((EXPORT_ID, str(export_id)), *((f"{_ABOUT}{name}", value) for name, value in about.items()))
