"""A bridge without a build, which remembers what it was asked, and the service in front of one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
import trio.testing

from buildengine.api import gateway_pb2 as pb
from buildengine.api import rpc
from buildengine.api.bridge import ContainerOrder, Process, ProcessOrder, Ref, Result, SolveOrder
from buildengine.api.connection import open_channel, serve_connection
from buildengine.api.daemon import WorkerInfo
from buildengine.api.gateway import SERVICE, Gateway
from buildengine.api.rpc import RpcError
from buildengine.api.status import to_rpc
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.sourcepolicy import Policy
from frontends.gateway import USUAL_DETAILS, Details, FileInfo, ResolvedSource
from frontends.testing import AMD64
from llb.definition import Definition
from llb.ops import SourceOp

WORKER = WorkerInfo(id="w1", labels={"executor": "oci"}, platforms=(AMD64,), policies=())


class FakeBridge:
    """`answers` by method; an exception among them is raised. `asked` are the calls as they came."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []
        self.result: Result | RpcError | None = None

    def _answer(self, method: str, *asked: Any) -> Any:
        self.asked.append((method, *asked))
        answer = self.answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def solve(self, order: SolveOrder) -> Result:
        return self._answer("solve", order) or Result(ref=Ref(id="r1", definition=order.definition))

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str,
        name: str,
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource:
        more = () if details == USUAL_DETAILS else (details,)
        asked = (source.identifier, dict(source.attrs), platform, mode, name, policies)
        return self._answer("resolve_source", *asked, *more)

    async def read_file(self, ref: str, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self._answer("read_file", ref, path, offset, length)

    async def read_dir(self, ref: str, path: str, *, include: str) -> Sequence[FileInfo]:
        return self._answer("read_dir", ref, path, include)

    async def stat_file(self, ref: str, path: str) -> FileInfo:
        return self._answer("stat_file", ref, path)

    async def evaluate(self, ref: str) -> None:
        self._answer("evaluate", ref)

    async def new_container(self, order: ContainerOrder) -> None:
        self._answer("new_container", order)

    async def release_container(self, id: str) -> None:
        self._answer("release_container", id)

    async def start(self, order: ProcessOrder) -> Process:
        return self._answer("start", order)

    def inputs(self) -> Mapping[str, Definition]:
        return self._answer("inputs") or {}

    async def warn(self, warning: WarningEvent) -> None:
        self._answer("warn", warning)

    def finish(self, result: Result) -> None:
        self.result = result

    def fail(self, error: RpcError) -> None:
        self.result = error


class FakeProcess:
    """A process with pipes; the test has the other ends: `given` to read from, `out` and `err` to write to."""

    terminal = -1

    def __init__(self) -> None:
        self.given, self.stdin = os.pipe2(os.O_CLOEXEC)
        self.stdout, self.out = os.pipe2(os.O_CLOEXEC)
        self.stderr, self.err = os.pipe2(os.O_CLOEXEC)
        self.signals: list[int] = []
        self.ended = trio.Event()
        self.outcome: int | Exception = 0

    def end(self, outcome: int | Exception = 0) -> None:
        self.outcome = outcome
        self.ended.set()

    def close(self) -> None:
        for fd in (self.given, self.out, self.err):
            os.close(fd)

    async def signal(self, number: int) -> None:
        self.signals.append(number)

    async def wait(self) -> int:
        await self.ended.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Caller:
    """The client's side of the service."""

    def __init__(self, channel: rpc.Channel) -> None:
        self._channel = channel

    async def __call__(self, method: str, request: Any) -> Any:
        name = type(request).__name__.removesuffix("Request")
        answer = getattr(pb, "PongResponse" if name == "Ping" else f"{name}Response")
        return await self._channel.unary(f"/{SERVICE}/{method}", request, answer)

    def processes(self) -> AbstractAsyncContextManager[rpc.ClientCall[pb.ExecMessage, pb.ExecMessage]]:
        return self._channel.stream(f"/{SERVICE}/ExecProcess", pb.ExecMessage, pb.ExecMessage)


@asynccontextmanager
async def served(bridge: FakeBridge | RpcError, *, worker: WorkerInfo = WORKER) -> AsyncIterator[Caller]:
    """The service in front of `bridge`, or of nothing that can be found, over a stream pair in memory."""

    async def find(metadata: rpc.Metadata) -> FakeBridge:
        if isinstance(bridge, RpcError):
            raise bridge
        return bridge

    ours, theirs = trio.testing.memory_stream_pair()
    services = Gateway(find, lambda: worker).services
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_connection(theirs, services, describe=to_rpc)

        nursery.start_soon(serve)
        async with open_channel(ours) as channel:
            yield Caller(channel)
        nursery.cancel_scope.cancel()
