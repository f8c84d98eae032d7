"""Uploads: bytes that came and are no blob yet, each session a file that nobody else sees until it is whole.

A session outlives its connections: what had come when one was cut stays, and the client asks how much that is and
goes on. It does not outlive the process: the file lies in `ingest` under the process's lease, so whoever opens the
store next takes it away. A session that nobody has touched for an hour goes too.

One request at a time has a session. A second one takes it over, since what it means is mostly that the first one's
connection is dead and nobody here has heard of it yet.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from buildengine.digest import Digest
from buildengine.errors import InternalError, StoreError
from buildengine.limits import DISK, offload
from cache.opened import Cache
from cache.store import BlobInfo, BlobWriter
from worker.registry.server.answers import Code, Headers, Refusal
from worker.registry.server.ranges import Span, received
from worker.registry.server.transfer import receive
from worker.registry.server.wire import Body

MOST, MOST_BEGUN = 500, 10_000  # that have a file, which costs a descriptor; and with those that have no byte yet
_IDLE_SECONDS = 3600.0
_IDLE_SECONDS_WHEN_FULL = 60.0
_RETRY_SECONDS = "30"


class Upload:
    """One session. `received` is how many bytes it has."""

    def __init__(self, repository: str) -> None:
        self.id = str(uuid.uuid4())
        self.repository = repository
        self.writer: BlobWriter | None = None
        self.lock = trio.Lock()
        self.holder: trio.CancelScope | None = None
        self.used = trio.current_time()

    @property
    def received(self) -> int:
        return 0 if self.writer is None else self.writer.written

    @property
    def headers(self) -> Headers:
        """Where it is and how far, as every answer about it says."""
        location = f"/v2/{self.repository}/blobs/uploads/{self.id}"
        return (("Location", location), ("Range", received(self.received)), ("Docker-Upload-UUID", self.id))


class Uploads:
    """The sessions of one server."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._sessions: dict[str, Upload] = {}

    def begin(self, repository: str) -> Upload:
        if len(self._sessions) >= MOST_BEGUN:
            raise _too_many(MOST_BEGUN)
        upload = Upload(repository)
        self._sessions[upload.id] = upload
        return upload

    def find(self, repository: str, id: str) -> Upload:
        upload = self._sessions.get(id)
        if upload is None or upload.repository != repository:
            raise Refusal(Code.BLOB_UPLOAD_UNKNOWN, f"there is no upload {id} in {repository}")
        upload.used = trio.current_time()
        return upload

    async def append(self, upload: Upload, body: Body, span: Span | None) -> None:
        """Take the bytes of `body`, which are `span` of the whole (None: the next ones). Raises Refusal."""
        async with self._turn(upload):
            await self._append(upload, body, span)

    async def finish(self, upload: Upload, body: Body, span: Span | None, digest: Digest) -> BlobInfo:
        """Take the last bytes and make it a blob of its repository. Raises Refusal; then the session is gone,
        unless the body broke off, or did not fit."""
        async with self._turn(upload):
            await self._append(upload, body, span)
            del self._sessions[upload.id]
        with self._cache.activity():
            try:
                return await self._committed(upload, digest)
            finally:
                _discard(upload)

    async def cancel(self, upload: Upload) -> None:
        async with self._turn(upload):
            self.forget(upload)

    def expire(self, *, idle: float = _IDLE_SECONDS) -> None:
        """Forget what nobody has touched for an hour, or for `idle` seconds."""
        now = trio.current_time()
        for upload in list(self._sessions.values()):
            if upload.holder is None and upload.used + idle < now:
                self.forget(upload)

    def _make_room(self) -> None:
        """For one more file. When there are too many, patience with those that rest is shorter."""
        if self._files() >= MOST:
            self.expire(idle=_IDLE_SECONDS_WHEN_FULL)
            if self._files() >= MOST:
                raise _too_many(MOST)

    def _files(self) -> int:
        return sum(upload.writer is not None for upload in self._sessions.values())

    def close(self) -> None:
        for upload in list(self._sessions.values()):
            self.forget(upload)

    async def _append(self, upload: Upload, body: Body, span: Span | None) -> None:
        _check_place(upload, body, span)
        if upload.writer is None:
            self._make_room()
            upload.writer = self._cache.store.writer()
        try:
            await receive(body, upload.writer.write)
        except StoreError:  # a full disk, mostly: what is here is in the way
            self.forget(upload)
            raise
        finally:
            upload.used = trio.current_time()
        if body.failure is not None:
            raise body.failure
        if span is not None and body.received != span.length:
            self.forget(upload)
            message = f"Content-Range announces {span.length} bytes, {body.received} came"
            raise Refusal(Code.SIZE_INVALID, message)

    async def _committed(self, upload: Upload, digest: Digest) -> BlobInfo:
        writer = upload.writer
        if writer is None:
            raise InternalError("an upload without a file")
        if writer.digest != digest:
            detail = {"expected": digest, "actual": writer.digest, "size": writer.written}
            raise Refusal(Code.DIGEST_INVALID, "the bytes are not those of the digest", detail=detail)
        info = await offload(writer.commit, limiter=DISK)
        await self._cache.served.add_blob(upload.repository, info.digest)
        return info

    @asynccontextmanager
    async def _turn(self, upload: Upload) -> AsyncIterator[None]:
        """Have the session alone. Raises Refusal when it ended meanwhile, or another request takes it."""
        if upload.holder is not None:
            upload.holder.cancel()
        async with upload.lock:
            if upload.id not in self._sessions:
                raise Refusal(Code.BLOB_UPLOAD_UNKNOWN, f"the upload {upload.id} has ended")
            with trio.CancelScope() as scope:
                upload.holder = scope
                try:
                    yield
                finally:
                    upload.holder = None
        if scope.cancelled_caught:
            message = f"another request goes on with the upload {upload.id}"
            raise Refusal(Code.BLOB_UPLOAD_INVALID, message, status=409, close=True)

    def forget(self, upload: Upload) -> None:
        """End a session without a blob. Again is fine."""
        self._sessions.pop(upload.id, None)
        _discard(upload)


def _too_many(count: int) -> Refusal:
    message = f"there are {count} uploads already; end some, or wait"
    return Refusal(Code.TOOMANYREQUESTS, message, headers=(("Retry-After", _RETRY_SECONDS),))


def _check_place(upload: Upload, body: Body, span: Span | None) -> None:
    if span is None:
        return
    if span.start != upload.received:
        message = f"the upload has {upload.received} bytes, the chunk begins with byte {span.start}"
        raise Refusal(Code.BLOB_UPLOAD_INVALID, message, status=416, headers=upload.headers)
    if body.length is not None and body.length != span.length:
        message = f"Content-Range announces {span.length} bytes, Content-Length {body.length}"
        raise Refusal(Code.SIZE_INVALID, message)


def _discard(upload: Upload) -> None:
    if upload.writer is not None:
        upload.writer.discard()
