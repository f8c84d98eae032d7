"""What a client uploads as an http source: read once from its session; every other host is asked itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from buildengine.errors import HttpError, SourceError
from tests.fakes.http_server import Reply, serve
from worker.registry.transport import open_transport
from worker.session import SecretBytes, Uploads
from worker.sources.http import HttpSource
from worker.sources.origin import HttpOrigin
from worker.sources.uploads import UploadTransport


class NoSecrets:
    async def get(self, secret_id: str) -> SecretBytes | None:
        return None


class Nothing:
    def get(self, key: str) -> bytes | None:
        return None

    def put(self, key: str, value: bytes) -> None:
        raise AssertionError("an upload has nothing to be remembered by")


class Offered:
    """`Uploads` of one stream, which is gone once it was read."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked: list[tuple[str, str]] = []

    @asynccontextmanager
    async def pull(self, host: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append((host, path))
        if not self.pieces:
            raise SourceError("no such upload")

        async def pieces() -> AsyncIterator[bytes]:
            while self.pieces:
                yield self.pieces.pop(0)

        yield pieces()


async def fetched(root: Path, url: str, uploads: Uploads | None) -> bytes:
    out = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        async with open_transport() as others:
            source = HttpSource(UploadTransport(others, uploads), Nothing(), out)
            origin = HttpOrigin(url=url, filename="context")
            revision = await source.resolve(origin, NoSecrets())
            await source.fetch(origin, revision, out, NoSecrets())
            source.close()
    finally:
        os.close(out)
    return (root / "context").read_bytes()


async def test_an_upload_is_asked_of_the_session_once(tmp_path: Path) -> None:
    offered = Offered(b"an ", b"archive")
    assert await fetched(tmp_path, "http://buildkit-session/abc", offered) == b"an archive"
    assert offered.asked == [("buildkit-session", "/abc")]


async def test_an_upload_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HttpError, match="http://buildkit-session/abc: no such upload"):
        await fetched(tmp_path, "http://buildkit-session/abc", Offered())


async def test_a_build_without_uploads_says_so(tmp_path: Path) -> None:
    with pytest.raises(HttpError, match="nothing is uploaded to this build"):
        await fetched(tmp_path, "http://buildkit-session/abc", None)


async def test_other_hosts_are_asked_themselves(tmp_path: Path) -> None:
    offered = Offered(b"x")
    async with serve(lambda request: Reply(body=b"theirs")) as server:
        assert await fetched(tmp_path, f"{server.url}/buildkit-session", offered) == b"theirs"
    assert offered.asked == []
