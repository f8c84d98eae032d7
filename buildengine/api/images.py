"""pybuild.v1.Images: the images of the store, for `pybuild --addr`. Messages in, the store's answers out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Protocol, TypeVar

import trio

from buildengine.api import convert, rpc
from buildengine.api import imagemessages as messages
from buildengine.api import images_pb2 as pb
from buildengine.api.rpc import ServerCall
from buildengine.builder import PulledImage, PullRequest
from buildengine.digest import Digest
from buildengine.events import Event, EventSink
from buildengine.imagecalls import AsyncImages
from worker.layers.outcome import one_error
from worker.session import Credentials

SERVICE = "pybuild.v1.Images"
_PIECE = 1 << 20  # bytes of one message

_T = TypeVar("_T")
_Document = Callable[..., Awaitable[object]]


class StoredImages(AsyncImages, Protocol):
    """The images of the daemon's store, in trio."""

    async def push(
        self, reference: str, names: Sequence[str], credentials: Credentials, on_event: EventSink
    ) -> Sequence[str]: ...

    async def pull(
        self, request: PullRequest, credentials: Credentials, on_layer: Callable[[Digest, bool], object]
    ) -> PulledImage: ...


class Images:
    """The servicer. `credentials` gives what a session's client knows of registries."""

    def __init__(self, store: StoredImages, credentials: Callable[[str], Credentials]) -> None:
        self._store = store
        self._credentials = credentials

    @property
    def services(self) -> rpc.Services:
        return rpc.service(
            SERVICE,
            {
                "List": rpc.unary(pb.ListImagesRequest, pb.ListImagesResponse, self._list),
                "Inspect": rpc.unary(pb.ImageRequest, pb.ImageDocument, self._inspect),
                "History": rpc.unary(pb.ImageRequest, pb.ImageDocument, self._history),
                "Tag": rpc.unary(pb.TagImageRequest, pb.TagImageResponse, self._tag),
                "Remove": rpc.unary(pb.RemoveImageRequest, pb.RemoveImageResponse, self._remove),
                "Prune": rpc.unary(pb.PruneImagesRequest, pb.ListImagesResponse, self._prune),
                "Save": rpc.server_stream(pb.SaveImagesRequest, pb.Piece, self._save),
                "Load": rpc.stream(pb.Piece, pb.LoadImagesResponse, self._load),
                "Push": rpc.server_stream(pb.PushImageRequest, pb.PushImageResponse, self._push),
                "Pull": rpc.server_stream(pb.PullImageRequest, pb.PullImageResponse, self._pull),
            },
        )

    async def _list(
        self, request: pb.ListImagesRequest, call: ServerCall[pb.ListImagesRequest, pb.ListImagesResponse]
    ) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=map(messages.image_message, await self._store.list()))

    async def _inspect(
        self, request: pb.ImageRequest, call: ServerCall[pb.ImageRequest, pb.ImageDocument]
    ) -> pb.ImageDocument:
        return await _document(self._store.inspect, request)

    async def _history(
        self, request: pb.ImageRequest, call: ServerCall[pb.ImageRequest, pb.ImageDocument]
    ) -> pb.ImageDocument:
        return await _document(self._store.history, request)

    async def _tag(
        self, request: pb.TagImageRequest, call: ServerCall[pb.TagImageRequest, pb.TagImageResponse]
    ) -> pb.TagImageResponse:
        await self._store.tag(request.source, request.target)
        return pb.TagImageResponse()

    async def _remove(
        self, request: pb.RemoveImageRequest, call: ServerCall[pb.RemoveImageRequest, pb.RemoveImageResponse]
    ) -> pb.RemoveImageResponse:
        return pb.RemoveImageResponse(lines=await self._store.remove(request.reference, force=request.force))

    async def _prune(
        self, request: pb.PruneImagesRequest, call: ServerCall[pb.PruneImagesRequest, pb.ListImagesResponse]
    ) -> pb.ListImagesResponse:
        return pb.ListImagesResponse(images=map(messages.image_message, await self._store.prune(all=request.all)))

    async def _save(self, request: pb.SaveImagesRequest, call: ServerCall[pb.SaveImagesRequest, pb.Piece]) -> None:
        buffer = bytearray()

        def flush() -> None:
            trio.from_thread.run(call.send, pb.Piece(data=bytes(buffer)))
            buffer.clear()

        def write(data: bytes) -> None:
            for start in range(0, len(data), _PIECE):
                buffer.extend(data[start : start + _PIECE])
                if len(buffer) >= _PIECE:
                    flush()

        await self._store.save(tuple(request.references), write)
        await call.send(pb.Piece(data=bytes(buffer)))

    async def _load(self, call: ServerCall[pb.Piece, pb.LoadImagesResponse]) -> None:
        buffer = bytearray()

        def read(size: int) -> bytes:
            while not buffer:
                piece = trio.from_thread.run(call.receive)
                if piece is None:
                    return b""
                buffer.extend(piece.data)
            data = bytes(buffer[:size])
            del buffer[:size]
            return data

        names = await self._store.load(read)
        while await call.receive() is not None:  # behind the archive's end; a client that still sends hears no answer
            pass
        await call.send(pb.LoadImagesResponse(names=names))

    async def _push(
        self, request: pb.PushImageRequest, call: ServerCall[pb.PushImageRequest, pb.PushImageResponse]
    ) -> None:
        pushed: list[str] = []

        async def push(tell: Callable[[Event], None]) -> None:
            credentials = self._credentials(request.session)
            pushed.extend(await self._store.push(request.reference, tuple(request.names), credentials, tell))

        async with _told(push) as events:
            async for event in events:
                for status in convert.status_responses([event]):
                    await call.send(pb.PushImageResponse(status=status))
        await call.send(pb.PushImageResponse(pushed=pb.PushedImage(names=pushed)))

    async def _pull(
        self, request: pb.PullImageRequest, call: ServerCall[pb.PullImageRequest, pb.PullImageResponse]
    ) -> None:
        pulled: list[PulledImage] = []

        async def pull(tell: Callable[[pb.PulledLayer], None]) -> None:
            def on_layer(digest: Digest, fetched: bool) -> None:
                tell(pb.PulledLayer(digest=digest, fetched=fetched))

            credentials = self._credentials(request.session)
            pulled.append(await self._store.pull(messages.pull_request(request), credentials, on_layer))

        async with _told(pull) as layers:
            async for layer in layers:
                await call.send(pb.PullImageResponse(layer=layer))
        await call.send(pb.PullImageResponse(pulled=messages.pulled_message(pulled[0])))


async def _document(get: _Document, request: pb.ImageRequest) -> pb.ImageDocument:
    document = await get(request.reference, platform=messages.asked_platform(request))
    return pb.ImageDocument(json=json.dumps(document, ensure_ascii=False).encode())


@asynccontextmanager
async def _told(work: Callable[[Callable[[_T], None]], Awaitable[None]]) -> AsyncIterator[AsyncIterator[_T]]:
    """What `work` tells, while it runs: it does not wait for a client that reads slowly. Its error comes last."""
    telling, told = trio.open_memory_channel[_T](inf)
    failures: list[Exception] = []

    async def run() -> None:
        with telling:
            try:
                await work(telling.send_nowait)
            except Exception as error:
                failures.append(error)

    with one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield told
    if failures:
        raise failures[0]
