"""containerd's Content service over a store that clients read only: `buildctl debug get`, `buildx history`.

Facts: containerd plugins/services/content/contentserver, BuildKit control/control.go (roContentStore).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NoReturn, Protocol

from google.protobuf.empty_pb2 import Empty

from buildengine.api import content_pb2 as pb
from buildengine.api import rpc
from buildengine.api.convert import timestamp
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.filters import parse
from buildengine.limits import PATTERNS, offload

SERVICE = "containerd.services.content.v1.Content"
INFO, READ, WRITE = f"/{SERVICE}/Info", f"/{SERVICE}/Read", f"/{SERVICE}/Write"
STORE_ID = "buildkit-attachable-store-id"  # says which of its stores a client is asked for: `export`, or `oci:NAME`
EXPORT, LAYOUT = "export", "oci:"
EXPORT_ID = "buildkit-attachable-exporter-id"  # which of a build's exports bytes belong to
_CHUNK = 1 << 20  # bytes of one message
_LISTED = 100  # infos of one message


class Blobs(Protocol):
    """Everything that may be read."""

    def blob(self, digest: Digest) -> AbstractContextManager[int | None]:
        """A descriptor for reading; None where there is none. It is not used after the block."""
        ...

    def blobs(self) -> Iterable[Digest]: ...


class Content:
    """The servicer."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            SERVICE,
            {
                "Info": rpc.unary(pb.InfoRequest, pb.InfoResponse, self._info),
                "List": rpc.server_stream(pb.ListContentRequest, pb.ListContentResponse, self._list),
                "Read": rpc.server_stream(pb.ReadContentRequest, pb.ReadContentResponse, self._read),
                "Status": rpc.unary(pb.StatusRequest, pb.StatusResponse, self._status),
                "ListStatuses": rpc.unary(pb.ListStatusesRequest, pb.ListStatusesResponse, self._statuses),
                "Update": rpc.unary(pb.UpdateRequest, pb.UpdateResponse, _read_only),
                "Delete": rpc.unary(pb.DeleteContentRequest, Empty, _read_only),
                "Abort": rpc.unary(pb.AbortRequest, Empty, _read_only),
                "Write": rpc.stream(pb.WriteContentRequest, pb.WriteContentResponse, _no_writes),
            },
        )

    async def _info(
        self, request: pb.InfoRequest, call: ServerCall[pb.InfoRequest, pb.InfoResponse]
    ) -> pb.InfoResponse:
        digest = _digest(request.digest)
        with self._blobs.blob(digest) as fd:
            return pb.InfoResponse(info=_described(digest, _there(fd, digest)))

    async def _list(
        self, request: pb.ListContentRequest, call: ServerCall[pb.ListContentRequest, pb.ListContentResponse]
    ) -> None:
        blobs = self._blobs.blobs()
        if request.filters:
            blobs = await offload(_selected, blobs, tuple(request.filters), limiter=PATTERNS)
        found = sorted(blobs)
        for start in range(0, len(found), _LISTED):
            await call.send(pb.ListContentResponse(info=self._infos(found[start : start + _LISTED])))

    def _infos(self, digests: Sequence[Digest]) -> list[pb.Info]:
        infos = []
        for digest in digests:
            with self._blobs.blob(digest) as fd:
                if fd is not None:  # it was pruned meanwhile
                    infos.append(_described(digest, fd))
        return infos

    async def _read(
        self, request: pb.ReadContentRequest, call: ServerCall[pb.ReadContentRequest, pb.ReadContentResponse]
    ) -> None:
        digest = _digest(request.digest)
        with self._blobs.blob(digest) as fd:
            size = os.fstat(_there(fd, digest)).st_size
            if not 0 <= request.offset <= size or request.size < 0 or request.offset + request.size > size:
                raise RpcError(
                    Code.OUT_OF_RANGE, f"read past object length {size} bytes: {request.offset}+{request.size}"
                )
            end = request.offset + request.size if request.size else size
            assert fd is not None
            for offset in range(request.offset, end, _CHUNK):
                data = os.pread(fd, min(_CHUNK, end - offset), offset)
                await call.send(pb.ReadContentResponse(offset=offset, data=data))

    async def _status(
        self, request: pb.StatusRequest, call: ServerCall[pb.StatusRequest, pb.StatusResponse]
    ) -> pb.StatusResponse:
        raise RpcError(Code.NOT_FOUND, f"status for ref {request.ref}: not found")  # nobody writes here

    async def _statuses(
        self, request: pb.ListStatusesRequest, call: ServerCall[pb.ListStatusesRequest, pb.ListStatusesResponse]
    ) -> pb.ListStatusesResponse:
        return pb.ListStatusesResponse()


def _selected(blobs: Iterable[Digest], filters: Sequence[str]) -> list[Digest]:
    selects = parse(filters)
    return [each for each in blobs if selects(partial(_field, each))]


async def _read_only(request: Any, call: Any) -> NoReturn:
    raise RpcError(Code.UNKNOWN, "read-only content store")


async def _no_writes(call: Any) -> None:
    await _read_only(None, call)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except UserError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"{text}: {error.message}") from None


def _there(fd: int | None, digest: Digest) -> int:
    if fd is None:
        raise RpcError(Code.NOT_FOUND, f"content {digest}: not found")
    return fd


def _described(digest: Digest, fd: int) -> pb.Info:
    found = os.fstat(fd)
    moment = timestamp(found.st_mtime)
    return pb.Info(digest=digest, size=found.st_size, created_at=moment, updated_at=moment)


def _field(digest: Digest, path: tuple[str, ...]) -> str | None:
    return str(digest) if path == ("digest",) else None
