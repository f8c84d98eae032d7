"""Sessions of uploads: who has one, and when it goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from buildengine.digest import Digest
from cache.opened import open_cache
from worker.registry.server.answers import Refusal
from worker.registry.server.ranges import Span
from worker.registry.server.uploads import Upload, Uploads
from worker.registry.server.wire import Body


class Given:
    """The body of a request. One that hangs never comes to its end."""

    def __init__(self, data: bytes, *, hangs: bool = False) -> None:
        self._data = data
        self._hangs = hangs
        self.length: int | None = None
        self.received = 0
        self.failure: Exception | None = None

    async def fill(self, buffer: memoryview) -> int:
        if not self._data and self._hangs:
            await trio.sleep_forever()
        data, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(data)] = data
        self.received += len(data)
        return len(data)


def given(data: bytes, *, hangs: bool = False) -> Body:
    return cast(Body, Given(data, hangs=hangs))


def status(refusal: pytest.ExceptionInfo[Refusal]) -> int:
    return refusal.value.answer.status


async def test_an_upload_becomes_a_blob_of_its_repository(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        uploads = Uploads(cache)
        upload = uploads.begin("app")
        await uploads.append(upload, given(b"hello, "), Span(start=0, length=7))
        assert dict(upload.headers)["Range"] == "0-6"
        digest = Digest.sha256(b"hello, world")
        await uploads.finish(upload, given(b"world"), None, digest)
        assert cache.served.blob("app", digest) == 12
        assert cache.store.read(digest) == b"hello, world"
        with pytest.raises(Refusal) as refusal:
            uploads.find("app", upload.id)
        assert status(refusal) == 404


async def test_an_upload_belongs_to_its_repository(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        uploads = Uploads(cache)
        upload = uploads.begin("app")
        with pytest.raises(Refusal) as refusal:
            uploads.find("other", upload.id)
        assert status(refusal) == 404


@pytest.mark.parametrize("ends", ["cancel", "close", "mismatch", "length"])
async def test_nothing_is_left_of_an_upload_that_failed(tmp_path: Path, ends: str) -> None:
    async with open_cache(tmp_path) as cache:
        uploads = Uploads(cache)
        upload = uploads.begin("app")
        await uploads.append(upload, given(b"hello"), None)
        assert len(os.listdir(tmp_path / "ingest")) == 1
        if ends == "cancel":
            await uploads.cancel(upload)
        elif ends == "close":
            uploads.close()
        else:
            span = Span(start=5, length=3) if ends == "length" else None
            with pytest.raises(Refusal) as refusal:
                await uploads.finish(upload, given(b"more"), span, Digest.sha256(b"other"))
            assert status(refusal) == 400
        assert os.listdir(tmp_path / "ingest") == []
        with pytest.raises(Refusal):
            uploads.find("app", upload.id)


async def test_an_upload_that_nobody_goes_on_with_goes(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_cache(tmp_path) as cache:
        uploads = Uploads(cache)
        idle, busy = uploads.begin("app"), uploads.begin("app")
        await uploads.append(idle, given(b"hello"), None)
        for _ in range(2):
            mock_clock.jump(3000)
            uploads.expire()
            assert uploads.find("app", busy.id) is busy
        with pytest.raises(Refusal):
            uploads.find("app", idle.id)
        assert os.listdir(tmp_path / "ingest") == []


async def test_uploads_that_rest_make_room_when_there_are_too_many(
    tmp_path: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.registry.server.uploads.MOST", 3)
    monkeypatch.setattr("worker.registry.server.uploads.MOST_BEGUN", 6)
    async with open_cache(tmp_path) as cache:
        uploads = Uploads(cache)
        begun = [uploads.begin("app") for _ in range(6)]
        with pytest.raises(Refusal) as refusal:
            uploads.begin("app")
        assert status(refusal) == 429
        assert "Retry-After" in dict(refusal.value.answer.headers)
        for upload in begun[:3]:
            await uploads.append(upload, given(b"x"), None)
        with pytest.raises(Refusal) as refusal:
            await uploads.append(begun[3], given(b"x"), None)
        assert status(refusal) == 429
        mock_clock.jump(61)
        await uploads.append(uploads.find("app", begun[3].id), given(b"x"), None)
        assert begun[3].received == 1
        with pytest.raises(Refusal):
            uploads.find("app", begun[0].id)


async def test_the_newer_request_has_the_upload(tmp_path: Path) -> None:
    """The bytes that the older one brought stay."""
    async with open_cache(tmp_path) as cache:
        uploads = Uploads(cache)
        upload = uploads.begin("app")
        refusals: list[int] = []

        async def older() -> None:
            with pytest.raises(Refusal) as refusal:
                await uploads.append(upload, given(b"x" * (1 << 20), hangs=True), None)
            refusals.append(status(refusal))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(older)
            await written(upload, 1 << 20)
            digest = Digest.sha256(b"x" * (1 << 20) + b"y")
            await uploads.finish(upload, given(b"y"), Span(start=1 << 20, length=1), digest)
        assert refusals == [409]
        assert cache.served.blob("app", digest) == (1 << 20) + 1


async def written(upload: Upload, count: int) -> None:
    while upload.received < count:
        await trio.lowlevel.checkpoint()
