"""Blobs of an export, written to a content store that grpcio serves as containerd's does."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from buildengine.api import content_pb2 as pb
from buildengine.api.content import INFO, WRITE
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from tests.fakes.session_client import Handlers, session_client, stream, unary
from tests.fakes.session_daemon import SessionDaemon, session_daemon


class Store:
    """One client's blobs. `begun` has come of a write before; `full`: nothing more is taken."""

    def __init__(self, *, begun: bytes = b"", full: bool = False) -> None:
        self.blobs: dict[str, bytes] = {}
        self.begun = begun
        self.full = full
        self.written = 0
        self.stores: set[str] = set()

    @property
    def handlers(self) -> Handlers:
        return {INFO: unary(pb.InfoRequest, self._info), WRITE: stream(pb.WriteContentRequest, self._write)}

    def _info(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.stores.add(dict(context.invocation_metadata())["buildkit-attachable-store-id"])
        if request.digest not in self.blobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        return pb.InfoResponse(info=pb.Info(digest=request.digest))

    def _write(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        begin = next(requests)
        assert begin.action == pb.STAT
        assert begin.ref
        data = self.begun
        yield pb.WriteContentResponse(action=pb.STAT, offset=len(data), total=begin.total)
        for request in requests:
            if self.full:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
            assert request.offset == len(data)
            data += request.data
            self.written += len(request.data)
            if request.action == pb.COMMIT:
                assert (request.total, request.expected) == (len(data), Digest.sha256(data))
                self.blobs[request.expected] = data
            yield pb.WriteContentResponse(action=request.action, offset=len(data))


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[SessionDaemon]:
    async with session_daemon(tmp_path / "root", tmp_path / "daemon") as running:
        yield running


async def put(daemon: SessionDaemon, tmp_path: Path, handlers: Handlers, *contents: bytes) -> None:
    client = session_client(tmp_path / "daemon", tmp_path, handlers)
    await trio.to_thread.run_sync(client.__enter__)
    try:
        blobs = daemon.session("one").sinks.blobs(0)
        assert blobs is not None
        for content in contents:
            await blobs.put(Digest.sha256(content), len(content), partial(io.BytesIO, content))
    finally:
        await trio.to_thread.run_sync(client.__exit__, None, None, None)


async def test_blobs_reach_the_store_for_exports_once(daemon: SessionDaemon, tmp_path: Path) -> None:
    store, large = Store(), os.urandom((5 << 20) + 1)
    await put(daemon, tmp_path, store.handlers, large, b"", b"small", large)
    assert store.blobs == {Digest.sha256(content): content for content in (large, b"", b"small")}
    assert store.written == len(large) + len(b"small")
    assert store.stores == {"export"}


async def test_a_write_that_was_broken_off_goes_on(daemon: SessionDaemon, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    store = Store(begun=content[: (1 << 20) + 5])
    await put(daemon, tmp_path, store.handlers, content)
    assert store.blobs == {Digest.sha256(content): content}
    assert store.written == len(content) - (1 << 20) - 5


async def test_a_store_that_takes_no_more_is_an_error(daemon: SessionDaemon, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"did not take the blob sha256:.*: no room"):
        await put(daemon, tmp_path, Store(full=True).handlers, b"x")


async def test_a_client_without_a_store_is_told_what_to_do(daemon: SessionDaemon, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes no blobs"):
        await put(daemon, tmp_path, {}, b"x")
