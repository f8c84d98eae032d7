"""One build on a daemon elsewhere: its session, the Solve call and the status stream at the same time.

Facts: BuildKit client/solve.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from buildengine.api import control_pb2 as pb
from buildengine.api import convert
from buildengine.builder import REQUEST_ID, BuildOutcome, BuildRequest, Export, with_upload
from buildengine.client.auth import Logins
from buildengine.client.connection import Connection
from buildengine.client.offload import offload
from buildengine.client.session import offer, session, shared_key
from buildengine.digest import Digest
from buildengine.events import EventSink
from buildengine.layoutexports import apart, is_layout

if TYPE_CHECKING:
    from buildengine.client.layout import LayoutTarget

_CONTROL = "/moby.buildkit.v1.Control"
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})
_LAST_WORDS = 3.0  # seconds for the status stream to end after the build


async def build(
    connection: Connection,
    request: BuildRequest,
    on_event: EventSink,
    *,
    logins: Logins | None = None,
    environment: Mapping[str, str] = _NO_ENVIRONMENT,
    stdout: int = 1,
) -> BuildOutcome:
    """Raises RpcError (`connect` makes a BuildError of it), UserError. Cancelled, it cancels the build.

    `logins` are those that the daemon may ask for, `environment` is that of secrets, `stdout` the descriptor of an
    export to `-`.
    """
    layouts = _layouts(request)
    request = with_upload(request)
    offered = offer(request, layouts, logins=logins, environment=environment, stdout=stdout)
    async with session(connection, offered, shared_key(request)) as id:
        explaining = await _watch(connection, request, on_event)
        telling = asyncio.create_task(_tell(connection, request.ref, on_event))
        try:
            solved, answer = await _solve(connection, request, convert.solve_request(request, session=id))
        finally:
            await _end(telling, *explaining)
        if not telling.cancelled() and (error := telling.exception()) is not None:
            raise error
    metadata, own = apart(dict(solved.ExporterResponse), list(layouts))
    for number, layout in layouts.items():
        await offload(layout.finish, own[number])
    digest = metadata.get("containerimage.digest")
    image = Digest(digest) if digest else None
    return BuildOutcome(ref=request.ref, metadata=metadata, image_digest=image, answer=answer)


async def _solve(
    connection: Connection, request: BuildRequest, message: pb.SolveRequest
) -> tuple[pb.SolveResponse, Mapping[str, bytes]]:
    """How it ended, and what the frontend has answered if it was asked."""
    if REQUEST_ID not in request.options:
        return await connection.unary(f"{_CONTROL}/Solve", message, pb.SolveResponse), {}
    from buildengine.client.asking import ask

    return await ask(connection, message)


def _layouts(request: BuildRequest) -> Mapping[int, LayoutTarget]:
    """The directories of exports with `tar=false`, by their numbers."""
    wanted = {n: export for n, export in enumerate(request.exports) if is_layout(export) and export.dest is not None}
    if not wanted:
        return {}
    from buildengine.client.layout import LayoutTarget

    def target(export: Export) -> LayoutTarget:
        return LayoutTarget(Path(export.dest or ""), tuple(filter(None, export.attrs.get("name", "").split(","))))

    return {number: target(export) for number, export in wanted.items()}


async def _tell(connection: Connection, ref: str, on_event: EventSink) -> None:
    responses = connection.server_stream(f"{_CONTROL}/Status", pb.StatusRequest(Ref=ref), pb.StatusResponse)
    async with aclosing(responses):
        async for response in responses:
            for event in convert.events(response):
                on_event(event)


async def _watch(connection: Connection, request: BuildRequest, on_event: EventSink) -> tuple[asyncio.Task[None], ...]:
    if not request.explain:
        return ()
    from buildengine.client.explaining import watch

    return (await watch(connection, request.ref, on_event),)


async def _end(*telling: asyncio.Task[None]) -> None:
    """The status of a failed or cancelled build has a last word too, but not for ever."""
    await asyncio.wait(telling, timeout=_LAST_WORDS)
    for task in telling:
        task.cancel()
    await asyncio.gather(*telling, return_exceptions=True)
