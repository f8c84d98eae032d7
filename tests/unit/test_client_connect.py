"""Calls of the client to a daemon of grpc.aio, and what becomes of what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest
from google.rpc.status_pb2 import Status

from buildengine.api import images_pb2 as pb
from buildengine.api import statusbytes
from buildengine.api.rpc import Code, RpcError
from buildengine.api.status import to_rpc
from buildengine.client.auth import Logins
from buildengine.client.connect import connect
from buildengine.client.images import DaemonImages
from buildengine.errors import BuildError, HostError, SourceError, StoreError, UserError
from tests.fakes.aio_daemon import Method, aio_daemon

Work = Callable[[DaemonImages], Awaitable[object]]


def ask(place: Path, method: str, answer: Method, work: Work) -> object:
    async def main() -> object:
        async with aio_daemon(place, {f"/pybuild.v1.Images/{method}": answer}) as address, connect(address) as daemon:
            return await work(DaemonImages(daemon, Logins(directory=place)))

    return asyncio.run(main())


def failing(error: BuildError) -> Method:
    """As pybuildd fails."""

    async def method(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        told = to_rpc(error)
        context.set_trailing_metadata((("grpc-status-details-bin", statusbytes.encode(told)),))
        code = next(code for code in grpc.StatusCode if code.value[0] == told.code)
        await context.abort(code, told.message)
        yield b""

    return method


@pytest.mark.parametrize(
    "error",
    [
        StoreError("the disk is full", hint="make room"),
        HostError("no overlay here"),
        SourceError("no such image: app", hint="look"),
        UserError("app is the beginning of several image ids"),
    ],
)
def test_the_error_is_the_daemons(tmp_path: Path, error: BuildError) -> None:
    with pytest.raises(type(error)) as caught:
        ask(tmp_path, "Tag", failing(error), lambda images: images.tag("a", "b"))
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert caught.value.exit_status == error.exit_status


def test_a_status_that_comes_during_a_write(tmp_path: Path) -> None:
    """grpcio puts `INTERNAL: Internal error from Core` in its place, more often than not."""

    async def answer(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await anext(messages)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not an archive")
        yield b""

    async def load(images: DaemonImages) -> None:
        for _ in range(30):
            with pytest.raises(RpcError) as caught:
                await images.load(lambda size: bytes(size))
            assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, "not an archive")

    ask(tmp_path, "Load", answer, load)


def test_an_error_of_somebody_else(tmp_path: Path) -> None:
    async def answer(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
        yield b""

    with pytest.raises(BuildError, match="not now"):
        ask(tmp_path, "List", answer, lambda images: images.list())
    assert Status.FromString(b"") == Status()


def test_a_daemon_without_our_services(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio_daemon(tmp_path, {}) as address, connect(address) as daemon:
            await DaemonImages(daemon, Logins(directory=tmp_path)).list()

    with pytest.raises(UserError, match=r"the daemon at unix://\S+ has no service pybuild\.v1\.Images") as caught:
        asyncio.run(main())
    assert "pybuildd has" in (caught.value.hint or "")


def test_an_archive_in_pieces(tmp_path: Path) -> None:
    """Each way: what is saved arrives in order, what is loaded as it is read."""
    pieces = [bytes([number]) * 1000 for number in range(20)]

    async def save(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield pb.Piece(data=piece).SerializeToString()

    saved: list[bytes] = []
    ask(tmp_path, "Save", save, lambda images: images.save(["app"], saved.append))
    assert saved == pieces

    async def load(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        came = [pb.Piece.FromString(message).data async for message in messages]
        yield pb.LoadImagesResponse(names=[str(came == pieces)]).SerializeToString()

    waiting = iter(pieces)
    assert ask(tmp_path, "Load", load, lambda images: images.load(lambda size: next(waiting, b""))) == ["True"]


def test_a_load_that_is_refused_ends_at_once(tmp_path: Path) -> None:
    async def load(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not an archive")
        yield b""

    with pytest.raises(BuildError, match="not an archive"):
        ask(tmp_path, "Load", load, lambda images: images.load(lambda size: b"x" * size))


def test_a_daemon_that_goes_in_the_middle(tmp_path: Path) -> None:
    async def main() -> None:
        began = asyncio.Event()

        async def save(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            began.set()
            await asyncio.sleep(1000)
            yield b""

        async def use(address: str) -> None:
            async with connect(address) as daemon:
                await DaemonImages(daemon, Logins(directory=tmp_path)).save(["a"], print)

        async with aio_daemon(tmp_path, {"/pybuild.v1.Images/Save": save}) as address:
            using = asyncio.create_task(use(address))
            await began.wait()
        await using

    with pytest.raises(SourceError, match="the daemon at unix://"):
        asyncio.run(main())
