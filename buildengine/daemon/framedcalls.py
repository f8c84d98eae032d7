"""The calls of a build file, answered over its socket, within bounds: nobody trusts who is at the other end.

A call is answered by the services of the build's gateway. What is bounded: the size of a frame, how many calls are
answered at once (beyond them nothing is read), how many there are in all, how many operations definitions have, and the
time for which the process keeps the engine waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import trio

from buildengine.api import frames, rpc
from buildengine.api import gateway_pb2 as pb
from buildengine.api.answering import answer
from buildengine.api.frames import BrokenFrame, Frame, Kind
from buildengine.api.gateway import SERVICE
from buildengine.api.rpc import Code, RpcError
from buildengine.api.status import STACK, to_rpc
from buildengine.api.statusbytes import encode
from buildengine.errors import UserError, leading
from buildengine.values import dataclass

_RECEIVE = 256 << 10
_METHODS = frozenset({  # all that take and give one message, but for containers: those are for debuggers
    "Evaluate", "Inputs", "Ping", "ReadDir", "ReadFile", "ResolveImageConfig", "ResolveSourceMeta", "Return", "Solve",
    "StatFile", "Warn",
})  # fmt: skip
_MOST_HELD = 64 << 20  # bytes of requests that are being answered
_FILES = 4  # that are read at once: an answer is as long as a message may be, and the process may take its time with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """`calls` in all, `at_once` of them open; `operations` in one definition and `operations_in_all` in every one;
    `seconds` of the process's own time, in which the engine has nothing to do for it."""

    calls: int = 10_000
    at_once: int = 32
    operations: int = 20_000
    operations_in_all: int = 200_000
    seconds: float = 60.0


class Patience:
    """How long a process may keep the engine waiting, all in all. It waits while it has nothing to work on."""

    def __init__(self, seconds: float) -> None:
        self.scope = trio.CancelScope()
        self._left = seconds
        self._since = trio.current_time()
        self._working = 0
        self.scope.deadline = self._since + seconds

    @contextmanager
    def working(self) -> Iterator[None]:
        """The engine works on something: it is not the process that takes the time."""
        if not self._working:
            self._left -= trio.current_time() - self._since
            self.scope.deadline = inf
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._since = trio.current_time()
                self.scope.deadline = self._since + self._left


class FramedCalls:
    """One process's calls on one socket."""

    def __init__(self, stream: trio.SocketStream, services: rpc.Services, bounds: Bounds, patience: Patience) -> None:
        self._stream = stream
        self._services = services
        self._bounds = bounds
        self._patience = patience
        self._open = trio.Semaphore(bounds.at_once)
        self._files = trio.Semaphore(_FILES)
        self._held = 0
        self._freed = trio.lowlevel.ParkingLot()
        self._sending = trio.Lock()
        self._calls = 0
        self._operations = 0
        self.over = trio.Event()
        self._reader = frames.Reader()

    async def run(self) -> None:
        """Until the process closes its end, when nobody waits for answers any more.

        Raises UserError for what is out of bounds, or no protocol of ours.
        """
        reader = self._reader
        try:
            async with trio.open_nursery() as nursery:
                while data := await self._received():
                    for frame in reader.feed(data):
                        method, request = self._taken(frame)
                        await self._take(len(request))
                        nursery.start_soon(self._answer, frame.number, method, request)
                nursery.cancel_scope.cancel()
        except* BrokenFrame as group:
            raise UserError(f"the build file breaks the protocol: {leading(group)}") from None
        finally:
            self.over.set()

    @property
    def is_whole(self) -> bool:
        """Whether no message has begun that has not come to its end."""
        return self._reader.is_between

    async def _received(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_RECEIVE))
        except trio.BrokenResourceError:
            return b""

    def _taken(self, frame: Frame) -> tuple[str, bytes]:
        if frame.kind is not Kind.CALL:
            raise BrokenFrame("a frame is no call")
        self._calls += 1
        if self._calls > self._bounds.calls:
            raise UserError(f"the build file has asked the engine more than {self._bounds.calls} questions")
        return frames.called(frame)

    async def _take(self, size: int) -> None:
        """Wait until one more call of this size may be open."""
        await self._open.acquire()
        while self._held and self._held + size > _MOST_HELD:
            await self._freed.park()
        self._held += size

    async def _answer(self, number: int, method: str, request: bytes) -> None:
        try:
            if method == "ReadFile":
                async with self._files:
                    await self._send_answer(number, method, request)
            else:
                await self._send_answer(number, method, request)
        except trio.BrokenResourceError:
            pass  # it has gone
        finally:
            self._open.release()
            self._held -= len(request)
            self._freed.unpark_all()

    async def _send_answer(self, number: int, method: str, request: bytes) -> None:
        with self._patience.working():
            frame = await self._answered(number, method, request)
        async with self._sending:
            await self._stream.send_all(frames.encode(frame))

    async def _answered(self, number: int, method: str, request: bytes) -> Frame:
        try:
            if method not in _METHODS:
                raise RpcError(Code.UNIMPLEMENTED, f"a build file cannot call {method}")
            if method == "Solve":
                self._count(request)
            answered = await answer(self._services, f"/{SERVICE}/{method}", request)
            if len(answered) > rpc.MAX_MESSAGE:
                raise RpcError(Code.RESOURCE_EXHAUSTED, f"{method}: the answer is larger than {rpc.MAX_MESSAGE} bytes")
            return Frame(Kind.ANSWER, number, answered)
        except UserError as error:
            if isinstance(error, _TooMany):
                raise
            return _failure(number, error)
        except Exception as error:
            return _failure(number, error)

    def _count(self, request: bytes) -> None:
        """Raises _TooMany."""
        try:
            message = pb.SolveRequest.FromString(request)
        except Exception:  # whoever answers says so
            return
        for definition in (message.Definition, *message.FrontendInputs.values()):
            count = len(getattr(definition, "def"))
            self._operations += count
            if count > self._bounds.operations:
                raise _TooMany(f"a definition of the build file has more than {self._bounds.operations} operations")
        if self._operations > self._bounds.operations_in_all:
            most = self._bounds.operations_in_all
            raise _TooMany(f"all definitions of the build file have more than {most} operations together")


class _TooMany(UserError):
    """This ends the build, whatever the build file would make of it."""


def _failure(number: int, error: Exception) -> Frame:
    """Without the engine's own stack: where it stands in our code is nobody's business there."""
    told = to_rpc(error)
    details = tuple(each for each in told.details if each.type_url != STACK)
    return Frame(Kind.FAILURE, number, encode(RpcError(told.code, told.message, details)))
