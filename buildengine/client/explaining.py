"""The explanations of a build on a daemon: pybuildd's own service beside BuildKit's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from buildengine.api import explain_pb2 as pb
from buildengine.api.explaining import explanation
from buildengine.api.rpc import Code, RpcError
from buildengine.client.connection import Connection
from buildengine.errors import UserError
from buildengine.events import EventSink

_WATCH = "/pybuild.v1.Explain/Watch"


async def watch(connection: Connection, ref: str, on_event: EventSink) -> asyncio.Task[None]:
    """Ask the build `ref`, which has not begun, to explain itself. The task ends with the build."""
    answers = connection.server_stream(_WATCH, pb.WatchRequest(ref=ref), pb.Explanation)
    try:
        await anext(answers)
    except RpcError as error:
        if error.code is not Code.UNIMPLEMENTED:
            raise
        raise UserError(
            f"the daemon at {connection.name} cannot explain a build", hint="pybuildd can: build without --explain"
        ) from None
    return asyncio.create_task(_tell(answers, on_event))


async def _tell(answers: AsyncGenerator[pb.Explanation, None], on_event: EventSink) -> None:
    try:
        async for each in answers:
            on_event(explanation(each))
    finally:
        await answers.aclose()
