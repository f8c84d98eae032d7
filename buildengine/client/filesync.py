"""fsutil's protocol in asyncio: contexts are sent, exports received. The decisions are `buildengine.api.fs...`'s.

FileSync serves the directories that a build asks for by name, FileSend takes what it exports: a directory, or one file.

Facts: BuildKit session/filesync/filesync.go (metadata of the calls).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from buildengine.api import rpc
from buildengine.api.filesync_pb2 import BytesMessage
from buildengine.api.fsintake import Intake, do, present
from buildengine.api.fsoutlet import Outlet
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsutil import ProtocolError, Receiving
from buildengine.api.fswrite import Writer
from buildengine.api.rpc import Code, Metadata, RpcError, ServerCall
from buildengine.builder import Export
from buildengine.client.directories import Directory, Tree
from buildengine.client.offload import offload
from buildengine.errors import BuildError, ContextError, UserError
from buildengine.layoutexports import is_layout
from buildengine.wholefile import destination, named_by_user, standard_output
from worker.sources.origin import LocalOrigin

FILE_SYNC = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
_EXPORT_ID = "buildkit-attachable-exporter-id"

_Packets = ServerCall[Packet, Packet]


class FileSync:
    """The service of a client's directories, by name."""

    def __init__(self, directories: Mapping[str, Directory]) -> None:
        self._directories = directories

    @property
    def services(self) -> rpc.Services:
        return {FILE_SYNC: rpc.stream(Packet, Packet, self._send)}

    async def _send(self, call: _Packets) -> None:
        origin = asked_for(call.metadata)
        directory = self._directories.get(origin.name)
        if directory is None:
            raise RpcError(Code.NOT_FOUND, f"no access allowed to dir {origin.name!r}")
        with _explained(f"cannot read the directory {origin.name!r}"), directory.opened(origin) as tree:
            async with _telling(call):
                await _Sender(call, tree).run()


class FileSend:
    """What becomes of a build's exports, by their numbers."""

    def __init__(self, exports: tuple[Export, ...], stdout: int) -> None:
        self._exports = exports
        self._stdout = stdout

    @property
    def takes_any(self) -> bool:
        return any(export.dest is not None and not is_layout(export) for export in self._exports)

    def method(self, metadata: Metadata) -> rpc.Method[Any, Any]:
        """A directory comes as fsutil's packets, anything else as bytes. Raises RpcError."""
        number = rpc.value(metadata, _EXPORT_ID, "0")
        export = self._exports[int(number)] if number.isdigit() and int(number) < len(self._exports) else None
        if export is None or export.dest is None or is_layout(export):
            raise RpcError(Code.INVALID_ARGUMENT, f"export {number[:20]} has no destination here")
        if export.type == "local":
            return rpc.stream(Packet, Packet, _DirectoryTarget(export, Path(export.dest)).receive)
        return rpc.stream(BytesMessage, BytesMessage, _FileTarget(export.dest, self._stdout).receive)


def asked_for(metadata: Metadata) -> LocalOrigin:
    """The directory, and which part of it, that the metadata of a call names."""
    names = ("include-patterns", "exclude-patterns", "followpaths")
    include, exclude, follow = (_values(metadata, name) for name in names)
    name = next(iter(_values(metadata, "dir-name")), "")
    return LocalOrigin(name=name, include_patterns=include, exclude_patterns=exclude, follow_paths=follow)


def _values(metadata: Metadata, name: str) -> tuple[str, ...]:
    found = rpc.values(metadata, name)
    return tuple(map(unquote_plus, found) if rpc.value(metadata, f"{name}-encoded") else found)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ContextError(f"{what}: {error.strerror}") from error


@asynccontextmanager
async def _telling(call: _Packets) -> AsyncIterator[None]:
    """What goes wrong here is told in the protocol too: the other side may not look at the status."""
    try:
        yield
    except (BuildError, OSError) as error:
        with suppress(RpcError):
            await call.send(Packet(type=Packet.ERR, data=str(error).encode()))
        raise


class _Sender:
    """One task sends, the other one reads requests: neither side waits for the other."""

    def __init__(self, call: _Packets, tree: Tree) -> None:
        self._call = call
        self._outlet = Outlet(tree.entries(), tree.open)
        self._wake = asyncio.Event()

    async def run(self) -> None:
        sending = asyncio.create_task(self._send_all())
        reading = asyncio.create_task(self._read_requests())
        try:
            done, _ = await asyncio.wait((sending, reading), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (sending, reading):
                task.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)
            self._outlet.close()
        await self._call.send(Packet(type=Packet.FIN))

    async def _read_requests(self) -> None:
        while not self._outlet.is_whole:
            packets = await self._call.receive_many()
            if not packets:
                raise ProtocolError("the receiver ended before it had everything")
            for packet in packets:
                self._outlet.take(packet)
            self._wake.set()

    async def _send_all(self) -> None:
        while True:
            self._wake.clear()
            packets = await offload(self._outlet.packets)
            if not packets:
                await self._wake.wait()
            for packet in packets:
                await self._call.send(packet)


class _DirectoryTarget:
    """A directory that is made where it is missing; the export is merged into it, unless it says `mode=delete`."""

    def __init__(self, export: Export, path: Path) -> None:
        self._merge = export.attrs.get("mode") != "delete"
        self._path = path

    async def receive(self, call: _Packets) -> None:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"cannot write to {self._path}: {error.strerror}") from error
        try:
            async with _telling(call):
                with named_by_user(f"to {self._path}"):
                    await _receive(call, root, merge=self._merge)
        finally:
            os.close(root)


async def _receive(call: _Packets, root: int, *, merge: bool) -> None:
    """Files belong to whoever runs this, as every file that he makes."""
    known = {} if merge else await offload(present, root)
    writer = Writer(root)
    intake = Intake(Receiving(known, trust=False), writer)
    wake = asyncio.Event()
    asking = asyncio.create_task(_ask(call, intake, wake))
    try:
        while not intake.is_whole:
            packets = await call.receive_many()
            if not packets:
                raise ProtocolError("the other side ended before it had sent everything")
            for packet in packets:
                intake.take(packet)
            wake.set()
            if intake.is_full:
                await offload(do, intake.work())
        await offload(do, intake.last_work())
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.shield(offload(writer.close))
    await call.send(Packet(type=Packet.FIN))
    while await call.receive() is not None:
        pass


async def _ask(call: _Packets, intake: Intake, wake: asyncio.Event) -> None:
    """A task of its own: a sender that waits for us to take data does not read what we ask for."""
    while True:
        while intake.asks:
            await call.send(Packet(type=Packet.REQ, id=intake.asks.popleft()))
        wake.clear()
        await wake.wait()


class _FileTarget:
    """A file that is there when it is whole, or standard output."""

    def __init__(self, dest: str, stdout: int) -> None:
        self._dest = dest
        self._stdout = stdout

    async def receive(self, call: ServerCall[BytesMessage, BytesMessage]) -> None:
        import aiofiles

        opened = standard_output(self._stdout) if self._dest == "-" else destination(Path(self._dest))
        with opened as fd:
            async with aiofiles.open(fd, "wb", closefd=False) as file:
                while messages := await call.receive_many():
                    await file.write(b"".join(message.data for message in messages))
