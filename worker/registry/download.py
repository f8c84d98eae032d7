"""One blob from a registry into a sink: streamed, bounded, resumed where it broke off, verified.

The bytes are the same wherever they come from, so what a cut connection or a failing mirror has delivered is
kept and the next attempt asks for the rest. The digest decides in the end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol, runtime_checkable

import trio

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.limits import HASH, offload
from worker.oci.types import Descriptor
from worker.registry.client import EndpointClient, blob_path
from worker.registry.errors import RegistryRefused, deserves_retry
from worker.registry.transport import Response, Unreachable

_STEP = 1 << 20  # bytes handed to a thread at once: hashing and writing release the GIL
_MAX_ATTEMPTS = 30
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)")

Progress = Callable[[Digest, int, int], object]
"""Called with the digest, the bytes so far and all of them."""


class BlobSink(Protocol):
    """Where a blob goes, from its first byte on: the content store's writer. It only appends."""

    def write(self, data: bytes, /) -> object: ...


@runtime_checkable
class HashingSink(BlobSink, Protocol):
    """A sink that knows its digest as it goes: then nothing is hashed twice (0.7 ms a MiB)."""

    @property
    def digest(self) -> Digest:
        """The sha256 of what was written so far."""
        ...


class Download:
    """The transfer of one blob, over as many endpoints and attempts as it takes."""

    def __init__(
        self, descriptor: Descriptor, sink: BlobSink, *, delays: tuple[float, ...], on_progress: Progress
    ) -> None:
        self._descriptor = descriptor
        self._sink = sink
        self._delays = delays
        self._on_progress = on_progress
        self._attempts = 0
        self._written = 0
        self._hash = None if isinstance(sink, HashingSink) else hashlib.sha256()

    async def run(self, places: Iterable[tuple[EndpointClient, str]]) -> None:
        """Fetch from the first of `places` (endpoint, repository) that can, then verify. Raises SourceError."""
        failure: SourceError | None = None
        for client, repository in places:
            try:
                await self._from(client, repository)
                break
            except SourceError as error:
                failure = error
        else:
            raise failure or RegistryError(f"no registry is known to hold {self._descriptor.digest}")
        digest = self._digest()
        if digest != self._descriptor.digest:
            raise RegistryError(
                f"{client.endpoint.host} sent other bytes than {self._descriptor.digest}: their digest is {digest}",
                hint="the registry, a mirror or a proxy on the way altered or damaged the image",
            )

    def _digest(self) -> Digest:
        if self._hash is not None:
            return Digest.of_hex(self._hash.hexdigest())
        assert isinstance(self._sink, HashingSink)
        return self._sink.digest

    async def _from(self, client: EndpointClient, repository: str) -> None:
        delays = iter(self._delays)
        while True:
            before = self._written
            self._attempts += 1
            try:
                return await self._attempt(client, repository)
            except SourceError as error:
                if not deserves_retry(error) or self._attempts >= _MAX_ATTEMPTS:
                    raise
                if self._written > before:
                    delays = iter(self._delays)  # it moves: patience starts anew
                delay = next(delays, None)
                if delay is None:
                    raise
                await trio.sleep(max(delay, error.retry_after if isinstance(error, RegistryRefused) else 0.0))

    async def _attempt(self, client: EndpointClient, repository: str) -> None:
        size, start = self._descriptor.size, self._written
        if start == size and size > 0:
            return
        headers: Mapping[str, str] = {"range": f"bytes={start}-"} if start else {}
        subject = f"blob {self._descriptor.digest} of {repository}"
        what = f"{client.endpoint.host}: {subject}"
        async with client.get(repository, blob_path(self._descriptor.digest), subject=subject, headers=headers) as got:
            skip = start - check_extent(got, start, size, subject=what)
            await self._receive(got, skip, what)
        if self._written < size:
            raise Unreachable(f"{what} ended after {self._written} of {size} bytes")

    async def _receive(self, response: Response, skip: int, what: str) -> None:
        """Append the body after its first `skip` bytes, in steps large enough for a thread."""
        left = self._descriptor.size - self._written
        pending: list[bytes] = []
        held = 0
        try:
            async with aclosing(response.chunks()) as chunks:
                async for chunk in chunks:
                    fresh, skip = (chunk[skip:], 0) if skip < len(chunk) else (b"", skip - len(chunk))
                    pending.append(fresh)
                    held += len(fresh)
                    if held > left:
                        raise RegistryError(f"{what} is longer than its {self._descriptor.size} bytes")
                    if held >= _STEP:
                        left -= held
                        await self._append(pending)
                        pending, held = [], 0
        except Unreachable:
            await self._append(pending)  # what came before the cut counts
            raise
        await self._append(pending)

    async def _append(self, pending: list[bytes]) -> None:
        if sum(map(len, pending)) >= _STEP // 4:
            await offload(self._write, pending, limiter=HASH)
        else:
            self._write(pending)
        self._on_progress(self._descriptor.digest, self._written, self._descriptor.size)

    def _write(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            if self._hash is not None:
                self._hash.update(chunk)
            self._sink.write(chunk)
            self._written += len(chunk)


def check_extent(response: Response, start: int, size: int, *, subject: str) -> int:
    """Where in the blob the body of a response begins: 0 or `start`. Raises RegistryError for what cannot be.

    A server may ignore a range (status 200, the whole blob); it may not send another range or another length.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RegistryError(f"{subject} came in a content encoding that was not asked for")
    begin = 0
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != start or int(match[2]) >= size:
            raise RegistryError(f"{subject} came as another range than was asked for")
        begin = start
    length = response.headers.get("content-length")
    if length is not None and (not length.isdigit() or len(length) > 18 or int(length) != size - begin):
        raise RegistryError(f"{subject} announces {length[:40]} bytes; it should be {size - begin}")
    return begin
