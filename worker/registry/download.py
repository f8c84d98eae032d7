"""One blob from a registry into a sink: streamed, bounded, in parts, resumed where it broke off, verified.

The bytes are the same wherever they come from, so what a cut connection or a failing mirror has delivered is
kept and the next attempt asks for the rest. The digest decides in the end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol, runtime_checkable

import trio

from buildengine.digest import Digest
from buildengine.errors import BuildError, RegistryError, SourceError
from buildengine.limits import DISK, HASH, offload
from worker.oci.types import Descriptor
from worker.registry.errors import Damaged, deserves_retry
from worker.registry.patience import Patience
from worker.registry.places import Place
from worker.registry.transport import Response, Unreachable

DIVIDED = 64 << 20  # a blob of so many bytes is fetched in parts; on loopback parts cost a twentieth of the time
PART = 32 << 20
_MAX_PARTS = 4096  # of what claims to be larger than anything
_STEP = 512 << 10  # bytes handed to a thread at once: hashing and writing release the GIL
_TURN = 8 << 20  # after so many bytes a thread lets others have its place
_LITTLE = 64 << 10  # what is not worth staying in a thread for
_ABSORBED = 4 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")

Progress = Callable[[Digest, int, int], object]
"""Called with the digest, the bytes so far and all of them."""


class BlobSink(Protocol):
    """Where a blob goes, from its first byte on: the content store's writer. It only appends.

    What it is given is the caller's buffer: it copies what it keeps.
    """

    def write(self, data: memoryview, /) -> object: ...


@runtime_checkable
class HashingSink(BlobSink, Protocol):
    """A sink that knows its digest as it goes: then nothing is hashed twice (0.7 ms a MiB)."""

    @property
    def digest(self) -> Digest:
        """The sha256 of what was written so far."""
        ...


@runtime_checkable
class PlacingSink(HashingSink, Protocol):
    """A sink that takes pieces out of order, so that several connections can fill it."""

    def write_at(self, offset: int, data: memoryview, /) -> object:
        """Keep a piece from beyond what was written so far. Safe beside other calls, in threads."""
        ...

    def absorb(self, end: int, /) -> object:
        """Everything before `end` was placed: that is written now, and in the digest."""
        ...


class _Part:
    """The bytes from `position` to `end` of a blob, still to come. Whoever fetches them has `taken` them."""

    def __init__(self, start: int, end: int) -> None:
        self.position = start
        self.end = end
        self.untouched = True
        self.taken = False

    @property
    def missing(self) -> bool:
        return self.position < self.end or self.untouched


class Download:
    """The transfer of one blob, over as many places, attempts and connections as it takes.

    A big blob is fetched part by part, in order, by one connection and by as many helpers as `spare` has places for
    at that moment. Helpers only help: what one of them fails to get is left for the first, which also reports.
    Whoever ignores or misunderstands a range is asked for the whole blob.
    """

    def __init__(
        self, descriptor: Descriptor, sink: BlobSink, *, spare: trio.CapacityLimiter, on_progress: Progress
    ) -> None:
        self._descriptor = descriptor
        self._sink = sink
        self._spare = spare
        self._on_progress = on_progress
        self._hash = None if isinstance(sink, HashingSink) else hashlib.sha256()
        self._placing = sink if isinstance(sink, PlacingSink) else None
        size = descriptor.size
        divided = self._placing is not None and size >= DIVIDED
        step = max(PART, size // _MAX_PARTS + 1) if divided else max(size, 1)
        self._parts = [_Part(start, min(start + step, size)) for start in range(0, max(size, 1), step)]
        self._ranges = True  # until somebody answers one with nonsense
        self._received = 0
        self._front = 0  # what comes before it is written and hashed; behind it parts may be placed
        self._hashing = trio.Lock()
        self._failure: BuildError | None = None

    async def run(self, places: Iterable[Place]) -> None:
        """Fetch from the first of `places` that can, then verify. Raises SourceError, and what the sink raises."""
        failure: SourceError | None = None
        for place in places:
            try:
                await self._from(place)
                break
            except SourceError as error:
                failure = error
        else:
            raise failure or RegistryError(f"no registry is known to hold {self._descriptor.digest}")
        await self._advance()
        digest = self._digest()
        if digest != self._descriptor.digest:
            raise RegistryError(
                f"{place.host} sent other bytes than {self._descriptor.digest}: their digest is {digest}",
                hint="the registry, a mirror or a proxy on the way altered or damaged the image",
            )

    def _digest(self) -> Digest:
        if self._hash is not None:
            return Digest.of_hex(self._hash.hexdigest())
        assert isinstance(self._sink, HashingSink)
        return self._sink.digest

    async def _from(self, place: Place) -> None:
        patience = Patience(place.delays)
        while True:
            before = self._received
            try:
                return await self._attempt(place)
            except SourceError as error:
                await patience.wait_after(error, moved=self._received - before)

    async def _attempt(self, place: Place) -> None:
        """Fetch what is missing. What the first connection fails with is raised when the helpers are done."""
        while any(part.missing for part in self._parts):
            self._failure = None
            async with trio.open_nursery() as nursery:
                await self._work(place, nursery, helps=False)
            if self._failure is not None:
                raise self._failure

    async def _work(self, place: Place, nursery: trio.Nursery, *, helps: bool) -> None:
        """Fetch one part after the other while there are some that nobody has taken."""
        try:
            while (part := next((p for p in self._parts if p.missing and not p.taken), None)) is not None:
                if helps and self._spare.statistics().tasks_waiting:
                    return
                part.taken = True
                try:
                    await self._fetch(place, part, nursery)
                finally:
                    part.taken = False
        except SourceError as error:
            if not helps:
                self._failure = self._failure or error
                if not deserves_retry(error):
                    nursery.cancel_scope.cancel()
        except BuildError as error:  # the sink's: the disk is full
            self._failure = error
            nursery.cancel_scope.cancel()

    def _recruit(self, place: Place, nursery: trio.Nursery) -> None:
        """One helper more, when a connection is to spare: each one whose range was answered calls the next."""
        if any(part.missing and not part.taken for part in self._parts):
            helper = object()
            with suppress(trio.WouldBlock):
                self._spare.acquire_on_behalf_of_nowait(helper)
                nursery.start_soon(self._help, place, nursery, helper)

    async def _help(self, place: Place, nursery: trio.Nursery, helper: object) -> None:
        try:
            await self._work(place, nursery, helps=True)
        finally:
            self._spare.release_on_behalf_of(helper)

    # --- one part -------------------------------------------------------------------------------------------

    async def _fetch(self, place: Place, part: _Part, nursery: trio.Nursery) -> None:
        wants_range = self._ranges and (part.position > 0 or len(self._parts) > 1)
        try:
            await self._stream(place, part, nursery, wants_range)
        except RegistryError as error:
            if not wants_range or not (isinstance(error, OddRange) or error.status == 416):
                raise
            self._ranges = False
            await self._stream(place, part, nursery, False)

    async def _stream(self, place: Place, part: _Part, nursery: trio.Nursery, wants_range: bool) -> None:
        size, start = self._descriptor.size, part.position
        last = "" if part.end == size else part.end - 1
        headers: Mapping[str, str] = {"range": f"bytes={start}-{last}"} if wants_range else {}
        async with place.open(headers) as response:
            begin = check_extent(response, start if wants_range else 0, part.end, size, subject=place.name)
            if response.status != 206:
                self._join_followers(part)
            elif len(self._parts) > 1:
                self._recruit(place, nursery)
            part.untouched = False
            await self._receive(response, part, start - begin, place.name)
        if part.position < part.end:
            raise Unreachable(f"{place.name} ended after {self._received} of {size} bytes")

    def _join_followers(self, part: _Part) -> None:
        """The whole blob is on its way: what nobody has begun behind this part is taken from here as well."""
        behind = self._parts.index(part) + 1
        while behind < len(self._parts) and self._parts[behind].untouched and not self._parts[behind].taken:
            part.end = self._parts.pop(behind).end

    async def _receive(self, response: Response, part: _Part, skip: int, what: str) -> None:
        """Take the body after its first `skip` bytes up to the part's end, in steps large enough for a thread."""
        surplus = response.status != 206 and part.end < self._descriptor.size
        buffer = memoryview(bytearray(_STEP))
        while skip and (count := await _filled(response, buffer[:skip])):
            skip -= count
        while part.position < part.end:
            held = await _filled(response, buffer[: part.end - part.position])
            if not held:
                return
            await self._append(part, buffer, held, response)
        if not surplus and await response.fill(buffer):
            raise Damaged(f"{what} is longer than its {self._descriptor.size} bytes")

    # --- into the sink --------------------------------------------------------------------------------------

    async def _append(self, part: _Part, buffer: memoryview, held: int, response: Response) -> None:
        """Keep the first `held` bytes of `buffer`, and what of the part arrives while they are written."""
        most = part.end - part.position
        if part.position == self._front and not self._hashing.locked():
            async with self._hashing:
                if held >= _STEP // 4:
                    held = await offload(_pour, self._write, buffer, held, most, response, limiter=HASH)
                else:
                    self._write(buffer[:held])
                self._front += held
        else:
            assert self._placing is not None
            place = _Placing(self._placing, part.position).write
            held = await offload(_pour, place, buffer, held, most, response, limiter=DISK)
        part.position += held
        self._received += held
        self._on_progress(self._descriptor.digest, self._received, self._descriptor.size)
        await self._advance()

    async def _advance(self) -> None:
        """Write on over what lies ready behind the front, unless somebody is doing that."""
        while not self._hashing.locked() and self._front < (ready := self._ready()):
            assert self._placing is not None
            async with self._hashing:
                end = min(ready, self._front + _ABSORBED)
                await offload(self._placing.absorb, end, limiter=HASH)
                self._front = end

    def _ready(self) -> int:
        return next((part.position for part in self._parts if part.position < part.end), self._descriptor.size)

    def _write(self, data: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(data)
        self._sink.write(data)


class _Placing:
    """Writes one piece after the other behind what the sink has, from `offset` on."""

    def __init__(self, sink: PlacingSink, offset: int) -> None:
        self._sink = sink
        self._offset = offset

    def write(self, data: memoryview) -> None:
        self._sink.write_at(self._offset, data)
        self._offset += len(data)


async def _filled(response: Response, buffer: memoryview) -> int:
    """Bytes until `buffer` is full or nothing more comes. A body that breaks off says so when nothing came before."""
    held = 0
    while held < len(buffer):
        try:
            count = await response.fill(buffer[held:])
        except Unreachable:
            if not held:
                raise
            break  # what came before the cut counts; the next call meets it again
        if not count:
            break
        held += count
    return held


def _pour(write: Callable[[memoryview], object], buffer: memoryview, held: int, most: int, response: Response) -> int:
    """Write what `buffer` holds, then what arrives meanwhile, while that is much; how many bytes. For threads.

    The kernel's buffer of the connection fills while this one is hashed and written, so a fast registry never waits
    for the event loop.
    """
    poured = 0
    while True:
        write(buffer[:held])
        poured += held
        if held < _LITTLE or poured >= _TURN:
            return poured
        held = response.take_ready(buffer[: most - poured])


class OddRange(Damaged):
    """Another part of a blob than was asked for."""


def check_extent(response: Response, start: int, end: int, size: int, *, subject: str) -> int:
    """Where in the blob of `size` bytes the body of a response begins, when `start` to `end` was asked for.

    A server may ignore a range (status 200, the whole blob) or send less of it; it may not send another one, or
    another length than it says. Raises Damaged for what cannot be, OddRange for a range.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RegistryError(f"{subject} came in a content encoding that was not asked for")
    begin, stop = 0, size
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != start or not start <= int(match[2]) < end:
            raise OddRange(f"{subject} came as another range than was asked for")
        if match[3] not in ("*", str(size)):
            raise Damaged(f"{subject} is said to have {match[3]} bytes; it should have {size}")
        begin, stop = start, int(match[2]) + 1
    length = response.headers.get("content-length")
    if length is not None and (not length.isdigit() or len(length) > 18 or int(length) != stop - begin):
        raise Damaged(f"{subject} announces {length[:40]} bytes; it should be {stop - begin}")
    return begin
