"""An export as an OCI layout in a directory here: the daemon sends its blobs, its index is written when it is whole.

The blobs come to containerd's content service, as far as a writer needs it. Each has its name when it is whole and what
it should be; a write that breaks off leaves nothing.

Facts: BuildKit session/content, client/solve.go (the store `export`); containerd core/content/proxy (the writer).
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty

from buildengine.api import content_pb2 as pb
from buildengine.api import rpc
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.client.offload import offload
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.reference import parse
from buildengine.wholefile import whole_file_at
from worker.oci.document import Fields
from worker.oci.layout import NamedImage, write_directory
from worker.oci.types import MANIFEST_LIMIT, Descriptor, parse_descriptor, parse_manifest_or_index

_SERVICE = "containerd.services.content.v1.Content"
_DESCRIPTOR, _NAMES = "containerimage.descriptor", "image.name"  # exptypes, of the exporter's response
_OF_RESULT = "*"  # the names that the frontend gives

_Call = ServerCall[pb.WriteContentRequest, pb.WriteContentResponse]


class LayoutTarget:
    """The directory `path`, beside the images that it may hold already. `names` are the image's."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path = path
        self._names = names
        self._blobs = path / "blobs" / "sha256"
        self._last: Digest | None = None  # what the daemon asked for last: the image itself comes after what it is of

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            _SERVICE,
            {
                "Info": rpc.unary(pb.InfoRequest, pb.InfoResponse, self._info),
                "Status": rpc.unary(pb.StatusRequest, pb.StatusResponse, _no_status),
                "Abort": rpc.unary(pb.AbortRequest, Empty, _aborted),
                "Write": rpc.stream(pb.WriteContentRequest, pb.WriteContentResponse, self._write),
            },
        )

    def finish(self, response: Mapping[str, str]) -> None:
        """Write what says which image the blobs are. `response` is what the exporter has said.

        Blocks. Raises UserError, SourceError.
        """
        target = self._target(base64.b64decode(response.get(_DESCRIPTOR, "")))
        given = response.get(_NAMES, "").split(",") if _OF_RESULT in self._names else self._names
        names = tuple(str(parse(name)) for name in given if name)
        try:
            root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_directory(root, [NamedImage(target=target, names=names)], [])
            finally:
                os.close(root)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _target(self, told: bytes) -> Descriptor:
        if self._last is None:
            raise SourceError(f"the daemon sent no image for the layout {self._path}")
        if told:
            target = parse_descriptor(Fields.parse(told, what="the daemon's descriptor", limit=MANIFEST_LIMIT))
            if target.digest == self._last:
                return target
        raw = (self._blobs / self._last.hex).read_bytes()
        return parse_manifest_or_index(raw, what=f"the image of the layout {self._path}").descriptor

    async def _info(
        self, request: pb.InfoRequest, call: ServerCall[pb.InfoRequest, pb.InfoResponse]
    ) -> pb.InfoResponse:
        file = self._file(_digest(request.digest))
        if not file.is_file():
            raise RpcError(Code.NOT_FOUND, f"content {request.digest}: not found")
        return pb.InfoResponse(info=pb.Info(digest=request.digest, size=file.stat().st_size))

    async def _write(self, call: _Call) -> None:
        begin = await _next(call)
        digest = _digest(begin.expected)
        if self._file(digest).is_file():
            raise RpcError(Code.ALREADY_EXISTS, f"content {digest}: already exists")
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            directory = os.open(self._blobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with whole_file_at(directory, digest.hex, mode=0o644) as fd:
                    end = await _Write(call, fd, digest).run(begin)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._cannot_write(error) from error
        await call.send(end)

    def _file(self, digest: Digest) -> Path:
        self._last = digest
        return self._blobs / digest.hex

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"cannot write to {self._path}: {error.strerror}")


class _Write:
    """One blob on its way into the open file `fd`."""

    def __init__(self, call: _Call, fd: int, digest: Digest) -> None:
        self._call = call
        self._fd = fd
        self._digest = digest
        self._hash = hashlib.sha256()
        self._offset = 0
        self._total = 0

    async def run(self, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
        """Until the commit, whose answer is returned: the blob has no name before that. Raises RpcError."""
        while True:
            self._total = request.total or self._total
            if request.data:
                await self._take(request)
            answer = pb.WriteContentResponse(action=request.action, offset=self._offset, total=self._total)
            if request.action == pb.COMMIT:
                self._check()
                answer.digest = self._digest
                return answer
            await self._call.send(answer)
            request = await _next(self._call)

    async def _take(self, request: pb.WriteContentRequest) -> None:
        if request.offset != self._offset:
            raise RpcError(Code.OUT_OF_RANGE, f"write at {request.offset}, but the blob is at {self._offset}")
        await offload(self._append, request.data)
        self._offset += len(request.data)

    def _append(self, data: bytes) -> None:
        self._hash.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _check(self) -> None:
        found = Digest.of_hex(self._hash.hexdigest())
        if found != self._digest or (self._total and self._total != self._offset):
            raise RpcError(
                Code.FAILED_PRECONDITION, f"unexpected commit: {found} of {self._offset} bytes, not {self._digest}"
            )


async def _next(call: _Call) -> pb.WriteContentRequest:
    request = await call.receive()
    if request is None:
        raise RpcError(Code.CANCELLED, "the write ended before its commit")
    return request


def _digest(text: str) -> Digest:
    try:
        digest = Digest.parse(text)
    except UserError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"{text[:100]}: {error.message}") from None
    if digest.algorithm != "sha256":
        raise RpcError(Code.INVALID_ARGUMENT, f"{digest}: an OCI layout of ours has sha256 blobs only")
    return digest


async def _no_status(request: pb.StatusRequest, call: Any) -> pb.StatusResponse:
    raise RpcError(Code.NOT_FOUND, f"status for ref {request.ref[:200]}: not found")  # what broke off is gone


async def _aborted(request: pb.AbortRequest, call: Any) -> Empty:
    return Empty()
