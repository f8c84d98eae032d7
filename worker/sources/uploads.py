"""What a client uploads while it builds, an archive of its standard input say: http sources at a host of their own.

Only the build's session knows that host. An upload can be read once: whoever resolves such a source has its body.

Facts: BuildKit source/http/transport.go, session/upload.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import field
from urllib.parse import urlsplit

from buildengine.builder import SESSION_HOST
from buildengine.errors import HttpError
from buildengine.values import dataclass
from worker.session import Uploads
from worker.sources.http import Response, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uploaded:
    """A `Response`."""

    url: str
    pieces: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    async def chunks(self) -> AsyncGenerator[bytes]:
        async for piece in self.pieces:
            yield piece


class UploadTransport:
    """A `Transport` that asks the session for what is uploaded, and another transport for everything else."""

    def __init__(self, others: Transport, uploads: Uploads | None) -> None:
        self._others = others
        self._uploads = uploads

    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes = b""
    ) -> AbstractAsyncContextManager[Response]:
        if urlsplit(url).netloc != SESSION_HOST:
            return self._others.send(method, url, headers, content)
        return self._pull(url)

    @asynccontextmanager
    async def _pull(self, url: str) -> AsyncIterator[Response]:
        if self._uploads is None:
            raise HttpError("nothing is uploaded to this build", hint=f"{SESSION_HOST} is where a client's uploads are")
        async with self._uploads.pull(SESSION_HOST, urlsplit(url).path) as pieces:
            yield _Uploaded(url=url, pieces=pieces)
