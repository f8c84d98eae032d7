"""One blob into one repository: looked for, mounted from another one, else sent; resumed where it was cut off.

Facts: distribution-spec, "Pushing blobs", "Resuming an upload", "Mounting a blob". A blob goes as one body first.
What breaks off is gone on with from where the registry says it stands; where it cannot say, or says nonsense, the
upload begins anew, in pieces from then on. The registry checks the digest in the end, so a wrong resumption costs
time and never makes a wrong blob.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import partial
from typing import Protocol
from urllib.parse import urlencode

import trio

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.values import dataclass
from worker.oci.types import Descriptor
from worker.registry.client import PUSH, EndpointClient, blob_path
from worker.registry.errors import RegistryRefused, deserves_retry
from worker.registry.patience import Patience, retrying
from worker.registry.transport import Body, FileBody, Response, StreamedBody

_PIECE = 16 << 20
_LEAST_PIECE = 1 << 20
_MAX_ATTEMPTS = 40
_MAX_RESTARTS = 6
_ASKED_AGAIN = 2  # times that a question about an upload is: one that gets no answer is no failure of the upload
_DENIED = (401, 403)
_OCTETS = {"content-type": "application/octet-stream"}
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")

Progress = Callable[[Digest, int, int], object]
"""Called with the digest, the bytes so far and all of them; a restart goes back."""


class BlobReader(Protocol):
    """An open blob, wherever it is."""

    def chunks(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Its bytes from `start` up to `end`, in steps of about 1 MiB. Called again for every attempt."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFile:
    """An open blob that is a file. The registry checks its digest."""

    file: int


class SessionLost(RegistryError):
    """The registry forgot an upload, or said of it what cannot be."""


class BlobUpload:
    """The way of one blob into `repository`, over as many requests as it takes."""

    def __init__(
        self,
        client: EndpointClient,
        repository: str,
        descriptor: Descriptor,
        *,
        delays: tuple[float, ...],
        on_progress: Progress = lambda digest, current, total: None,
        turn: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`turn` is awaited before a body is sent, when the registry has opened a session for it."""
        self._client = client
        self._repository = repository
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._delays = delays
        self._on_progress = on_progress
        self._turn = turn
        self._subject = f"blob {descriptor.digest} of {repository}"
        self._location = ""  # where the session goes on; "" when there is none
        self._offset = 0  # what of the blob the registry has, as far as we know
        self._piece = 0  # bytes a request; 0: all in one
        self._least = _LEAST_PIECE
        self._cut = False  # a body broke off: the registry has to say where it stands
        self._unreadable: SourceError | None = None  # what was wrong with the source of the bytes

    async def exists(self) -> bool:
        """Whether the repository has the blob already."""
        return await retrying(self._exists, self._delays)

    async def mount(self, sources: Sequence[str]) -> bool:
        """Whether the registry could take the blob from one of `sources`, other repositories of its own."""
        for source in sources:
            await self._abandon()
            if await retrying(partial(self._mount, source), self._delays):
                return True
        return False

    async def send(self, reader: BlobReader | BlobFile) -> None:
        """Upload the blob. Raises SourceError when the registry will not have it."""
        patience, restarts = Patience(self._delays), 0
        for _ in range(_MAX_ATTEMPTS):
            before = self._offset
            try:
                return await self._attempt(reader)
            except SourceError as error:
                failure = error
                if error is self._unreadable:
                    raise
                if deserves_retry(error):
                    self._cut = bool(self._location)
                    await patience.wait_after(error, moved=self._offset - before)
                elif restarts < _MAX_RESTARTS and self._may_begin_anew(error):
                    restarts += 1
                    self._begin_anew()
                else:
                    raise
        raise failure

    # --- what a failure means --------------------------------------------------------------------------------

    def _may_begin_anew(self, error: SourceError) -> bool:
        """Whether another session, or smaller requests, may fare better. Changes the size of pieces."""
        if isinstance(error, SessionLost):
            self._piece = self._piece or _PIECE
            return True
        if not isinstance(error, RegistryRefused) or error.status in _DENIED or not self._location:
            return False
        if error.status == 413 and self._piece:
            smaller = self._piece // 4
            if smaller < self._least:
                return False
            self._piece = smaller
        else:
            self._piece = max(self._piece or _PIECE, self._least)
        return True

    def _begin_anew(self, location: str = "") -> None:
        self._location, self._offset, self._cut = location, 0, False

    def _lost_count(self) -> SessionLost:
        return SessionLost(f"{self._client.endpoint.host}: {self._subject}: it lost count of what it has")

    # --- requests --------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        target: str,
        *,
        mount_from: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
    ) -> AbstractAsyncContextManager[Response]:
        return self._client.request(
            method,
            self._repository,
            target,
            subject=self._subject,
            actions=PUSH,
            mount_from=mount_from,
            headers=headers,
            body=body,
        )

    async def _exists(self) -> bool:
        try:
            async with self._request("HEAD", blob_path(self._digest)) as response:
                length = response.headers.get("content-length")
        except RegistryRefused as error:
            if deserves_retry(error):
                raise
            return False  # what is wrong besides, the upload will say, with a body that explains it
        return length is None or length == str(self._size)

    async def _mount(self, source: str) -> bool:
        query = urlencode({"mount": str(self._digest), "from": source})
        try:
            async with self._request("POST", f"blobs/uploads/?{query}", mount_from=(source,)) as response:
                if response.status == 201:
                    return True
                self._take_session(response)  # it began an upload instead
        except RegistryError as error:
            if deserves_retry(error):
                raise
        return False  # it knows no mounts, or the source is not ours to read

    async def _abandon(self) -> None:
        """Tell the registry that a session will not be used."""
        if self._location:
            with suppress(SourceError):
                async with self._request("DELETE", self._location):
                    pass
            self._begin_anew()

    async def _attempt(self, reader: BlobReader | BlobFile) -> None:
        if self._cut:
            briefly = self._delays[:_ASKED_AGAIN]
            if await retrying(self._exists, briefly):  # all arrived, only the answer did not
                return
            await retrying(self._ask_where_it_stands, briefly)
        if not self._location:
            await self._begin()
        await self._turn()
        if self._offset == 0 and self._piece == 0:
            await self._finish(self._body(reader, 0, self._size))
            return
        while self._offset < self._size:
            await self._send_piece(reader)
        await self._finish(b"")

    async def _begin(self) -> None:
        async with self._request("POST", "blobs/uploads/") as response:
            self._take_session(response)

    async def _ask_where_it_stands(self) -> None:
        try:
            async with self._request("GET", self._location) as response:
                stands = _received(response)
                if response.headers.get("location"):
                    self._location = self._client.location(response)
        except RegistryRefused as error:
            if deserves_retry(error) or error.status in _DENIED:
                raise
            raise SessionLost(error.message, status=error.status, code=error.code) from error
        if stands is None or stands > self._size:
            raise self._lost_count()
        # `0-0` is said of nothing at all as well as of one byte; that byte is sent again.
        self._offset, self._cut = stands if stands > 1 else 0, False

    async def _send_piece(self, reader: BlobReader | BlobFile) -> None:
        start = self._offset
        end = min(start + (self._piece or self._size), self._size)
        headers = {**_OCTETS, "content-range": f"{start}-{end - 1}"}
        body = self._body(reader, start, end)
        async with self._request("PATCH", self._location, headers=headers, body=body) as response:
            stands = _received(response)
            self._location = self._client.location(response)
        if stands is not None and not start < stands <= end:
            raise self._lost_count()
        self._offset = end if stands is None else stands

    async def _finish(self, body: Body) -> None:
        separator = "&" if "?" in self._location else "?"
        target = f"{self._location}{separator}{urlencode({'digest': str(self._digest)})}"
        async with self._request("PUT", target, headers=_OCTETS, body=body) as response:
            stored = response.headers.get("docker-content-digest", str(self._digest))
        if stored.startswith(self._digest.algorithm) and stored != self._digest:
            raise SessionLost(f"{self._client.endpoint.host} stored {stored[:100]} in the place of {self._subject}")

    def _take_session(self, response: Response) -> None:
        self._begin_anew(self._client.location(response))
        least = response.headers.get("oci-chunk-min-length", "")
        if least.isdigit() and len(least) < 12:
            self._least = max(_LEAST_PIECE, int(least))
            self._piece = max(self._piece, self._least) if self._piece else 0

    def _body(self, reader: BlobReader | BlobFile, start: int, end: int) -> Body:
        def on_sent(position: int) -> None:
            self._on_progress(self._digest, position, self._size)

        async def pieces() -> AsyncGenerator[bytes]:
            assert not isinstance(reader, BlobFile)
            sent = start
            try:
                async with aclosing(reader.chunks(start, end)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        sent += len(chunk)
                        on_sent(sent)
            except SourceError as error:
                self._unreadable = error
                raise

        if isinstance(reader, BlobFile):
            return FileBody(file=reader.file, offset=start, size=end - start, on_sent=on_sent)
        return StreamedBody(size=end - start, open=pieces)


def _received(response: Response) -> int | None:
    """How many bytes the registry has of an upload; None when it does not say what can be understood."""
    found = _RANGE.fullmatch(response.headers.get("range", ""))
    return None if found is None else int(found[1]) + 1
