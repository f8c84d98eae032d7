"""The build context as one stream: an archive on standard input, which the build reads as an http source.

Facts: BuildKit session/upload.
"""

from __future__ import annotations

from collections.abc import Callable

from buildengine.api import rpc
from buildengine.api.rpc import Code, RpcError, ServerCall
from buildengine.api.upload_pb2 import BytesMessage
from buildengine.client.offload import offload

_SERVICE = "moby.upload.v1.Upload"
_PIECE = 1 << 20  # bytes of one message; grpc-go takes 4 MiB


class Upload:
    """The stream that `read` gives (it blocks; b"" is its end), at `path` of the session's host, once."""

    def __init__(self, path: str, read: Callable[[int], bytes]) -> None:
        self._path = path
        self._read = read
        self._taken = False

    @property
    def services(self) -> rpc.Services:
        return rpc.service(_SERVICE, {"Pull": rpc.stream(BytesMessage, BytesMessage, self._pull)})

    async def _pull(self, call: ServerCall[BytesMessage, BytesMessage]) -> None:
        path = rpc.value(call.metadata, "urlpath")
        if path != self._path or self._taken:
            raise RpcError(Code.NOT_FOUND, f"nothing is uploaded at {path[:100]}")
        self._taken = True
        while data := await offload(self._read, _PIECE):
            await call.send(BytesMessage(data=data))
