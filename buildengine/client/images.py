"""The images of a daemon's store: pybuildd's own service beside BuildKit's API. asyncio.

Every call raises RpcError; of a daemon that has no such service `connect` says so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from buildengine.api import convert
from buildengine.api import imagemessages as messages
from buildengine.api import images_pb2 as pb
from buildengine.api.platformmessages import platform_message
from buildengine.api.rpc import Code, RpcError
from buildengine.builder import ImageInfo, PulledImage, PullRequest
from buildengine.client.auth import Logins
from buildengine.client.connection import Connection
from buildengine.client.offload import offload
from buildengine.client.session import offer_logins, session
from buildengine.digest import Digest
from buildengine.events import EventSink
from buildengine.platform import Platform

_SERVICE = "/pybuild.v1.Images"
_PIECE = 1 << 20  # bytes of one message


class DaemonImages:
    """`logins` are those that the daemon may ask for."""

    def __init__(self, connection: Connection, logins: Logins) -> None:
        self._connection = connection
        self._logins = logins

    async def list(self) -> Sequence[ImageInfo]:
        answer = await self._connection.unary(f"{_SERVICE}/List", pb.ListImagesRequest(), pb.ListImagesResponse)
        return [messages.image_info(each) for each in answer.images]

    async def inspect(self, reference: str, *, platform: Platform | None = None) -> Mapping[str, object]:
        found: Mapping[str, object] = await self._document("Inspect", reference, platform)
        return found

    async def history(self, reference: str, *, platform: Platform | None = None) -> Sequence[Mapping[str, object]]:
        found: Sequence[Mapping[str, object]] = await self._document("History", reference, platform)
        return found

    async def _document(self, method: str, reference: str, platform: Platform | None) -> Any:
        asked = None if platform is None else platform_message(platform)
        request = pb.ImageRequest(reference=reference, platform=asked)
        return json.loads((await self._connection.unary(f"{_SERVICE}/{method}", request, pb.ImageDocument)).json)

    async def tag(self, source: str, target: str) -> None:
        request = pb.TagImageRequest(source=source, target=target)
        await self._connection.unary(f"{_SERVICE}/Tag", request, pb.TagImageResponse)

    async def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        request = pb.RemoveImageRequest(reference=reference, force=force)
        return list((await self._connection.unary(f"{_SERVICE}/Remove", request, pb.RemoveImageResponse)).lines)

    async def prune(self, *, all: bool = False) -> Sequence[ImageInfo]:
        request = pb.PruneImagesRequest(all=all)
        answer = await self._connection.unary(f"{_SERVICE}/Prune", request, pb.ListImagesResponse)
        return [messages.image_info(each) for each in answer.images]

    async def save(self, references: Sequence[str], write: Callable[[bytes], object]) -> None:
        request = pb.SaveImagesRequest(references=references)
        async with aclosing(self._connection.server_stream(f"{_SERVICE}/Save", request, pb.Piece)) as pieces:
            async for piece in pieces:
                await offload(write, piece.data)

    async def load(self, read: Callable[[int], bytes]) -> Sequence[str]:
        async with self._connection.stream(f"{_SERVICE}/Load", pb.LoadImagesResponse) as call:
            while data := await offload(read, _PIECE):
                await call.send(pb.Piece(data=data))
            await call.half_close()
            answer = await call.receive()
        return list(answer.names) if answer is not None else []

    async def push(self, reference: str, names: Sequence[str], on_event: EventSink) -> Sequence[str]:
        async with self._credentials() as id:
            request = pb.PushImageRequest(reference=reference, names=names, session=id)
            responses = self._connection.server_stream(f"{_SERVICE}/Push", request, pb.PushImageResponse)
            async with aclosing(responses):
                async for response in responses:
                    if response.HasField("pushed"):
                        return list(response.pushed.names)
                    for event in convert.events(response.status):
                        on_event(event)
        raise RpcError(Code.UNAVAILABLE, "the daemon ended the push without a word")

    async def pull(self, request: PullRequest, on_layer: Callable[[Digest, bool], object]) -> PulledImage:
        async with self._credentials() as id:
            asked = messages.pull_message(request, id)
            responses = self._connection.server_stream(f"{_SERVICE}/Pull", asked, pb.PullImageResponse)
            async with aclosing(responses):
                async for response in responses:
                    if response.HasField("pulled"):
                        return messages.pulled_image(response.pulled)
                    on_layer(Digest(response.layer.digest), response.layer.fetched)
        raise RpcError(Code.UNAVAILABLE, "the daemon ended the pull without a word")

    @asynccontextmanager
    async def _credentials(self) -> AsyncIterator[str]:
        async with session(self._connection, offer_logins(self._logins), "") as id:
            yield id
