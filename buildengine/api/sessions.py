"""Who is there: the sessions of all clients, by id.

A client opens its session and starts its build at the same time, so whoever asks for a session waits for it a while.
A session ends with its call, or when its client does not answer: then what only it wanted is cancelled.

Facts: BuildKit session/manager.go (Get, handleConn), session/grpc.go (monitorHealth), session/group.go (Any).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from buildengine.api import rpc
from buildengine.api.connection import open_channel
from buildengine.api.control_pb2 import BytesMessage
from buildengine.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from buildengine.api.rpc import Code, RpcError
from buildengine.api.tunnel import Tunnel
from buildengine.errors import SourceError

WAIT = 5.0  # seconds for a session to appear
HEALTH = "/grpc.health.v1.Health/Check"
_UUID = "x-docker-expose-session-uuid"
_NAME = "x-docker-expose-session-name"
_SHARED_KEY = "x-docker-expose-session-sharedkey"
_METHOD = "x-docker-expose-session-grpc-method"
_LONGEST_ID = 1024
_MOST_METHODS = 1000


class SessionGone(SourceError):
    """The client has gone, or was never there."""

    grpc_code = 14  # UNAVAILABLE
    is_clients = True


class ClientSession:
    """One client's services, for as long as it is connected."""

    def __init__(self, *, id: str, name: str, shared_key: str, methods: frozenset[str], channel: rpc.Channel) -> None:
        self.id = id
        self.name = name
        self.shared_key = shared_key
        self.channel = channel
        self.ended = False
        self._methods = methods
        self._scopes: set[trio.CancelScope] = set()

    def supports(self, method: str) -> bool:
        """Whether the client serves `/package.Service/Method`, in whatever case."""
        return method.lower() in self._methods

    @contextmanager
    def alive(self) -> Iterator[None]:
        """A block that is cancelled when the session ends, and raises SessionGone then."""
        with trio.CancelScope() as scope:
            if self.ended:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise SessionGone(f"the client of session {self.id} has gone")

    def end(self) -> None:
        self.ended = True
        for scope in self._scopes:
            scope.cancel()


class Sessions:
    """The registry of one daemon. `serve` is the handler of `Control.Session`."""

    def __init__(self) -> None:
        self._sessions: dict[str, ClientSession] = {}
        self._changed = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._sessions)

    def get_nowait(self, id: str) -> ClientSession | None:
        return self._sessions.get(_without_prefix(id))

    async def get(self, id: str, *, timeout: float = WAIT) -> ClientSession:
        """The session `id` or `prefix:id`, waiting at most `timeout` seconds for it. Raises SessionGone."""
        with trio.move_on_after(timeout):
            while (session := self.get_nowait(id)) is None:
                await self._changed.park()
            return session
        raise SessionGone(f"no active session for {_without_prefix(id)[:100]}")

    async def serve(self, call: rpc.ServerCall[BytesMessage, BytesMessage]) -> None:
        """Until the client hangs up, or does not answer any more."""
        tunnel = Tunnel(call)
        async with (
            open_channel(tunnel) as channel,
            self._registered(_described(call.metadata, channel)),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_watch, channel, tunnel.ended)
            await tunnel.ended.wait()
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _registered(self, session: ClientSession) -> AsyncIterator[ClientSession]:
        """A client that comes again with the same id takes the place of the connection it has lost."""
        self._sessions[session.id] = session
        self._changed.unpark_all()
        try:
            yield session
        finally:
            session.end()
            if self._sessions.get(session.id) is session:
                del self._sessions[session.id]


class Health:
    """When a session that does not answer is given up: two failures without five successes in between."""

    FIRST, EVERY, TIMEOUT, SLOWER, ENOUGH = 5.0, 5.0, 30.0, 1.5, 5

    def __init__(self) -> None:
        self._failed = False
        self._successes = 0
        self._last = 0.0

    @property
    def timeout(self) -> float:
        """Seconds for the next check: slow is not dead."""
        return max(self.TIMEOUT, self.SLOWER * self._last)

    def checked(self, answered: bool, seconds: float) -> bool:
        """The outcome of one check; False when the session is given up."""
        self._last = seconds
        if not answered:
            given_up, self._failed, self._successes = self._failed, True, 0
            return not given_up
        self._successes += 1
        if self._successes >= self.ENOUGH:
            self._failed = False
        return True


async def _watch(channel: rpc.Channel, given_up: trio.Event) -> None:
    """Sets the event when the client does not answer any more."""
    health = Health()
    await trio.sleep(health.FIRST)
    while True:
        began = trio.current_time()
        answered = await _answers(channel, health.timeout)
        took = trio.current_time() - began
        if not health.checked(answered, took):
            given_up.set()
            return
        await trio.sleep(max(0.0, health.EVERY - took))


async def _answers(channel: rpc.Channel, timeout: float) -> bool:
    try:
        await channel.unary(HEALTH, HealthCheckRequest(), HealthCheckResponse, timeout=timeout)
    except RpcError:
        return False
    return True


def _described(metadata: rpc.Metadata, channel: rpc.Channel) -> ClientSession:
    id = rpc.value(metadata, _UUID)
    if not 0 < len(id) <= _LONGEST_ID:
        raise RpcError(Code.INVALID_ARGUMENT, "a session has an id")
    methods = rpc.values(metadata, _METHOD)
    if len(methods) > _MOST_METHODS:
        raise RpcError(Code.INVALID_ARGUMENT, f"a session with more than {_MOST_METHODS} methods")
    return ClientSession(
        id=id,
        name=rpc.value(metadata, _NAME),
        shared_key=rpc.value(metadata, _SHARED_KEY),
        methods=frozenset(method.lower() for method in methods),
        channel=channel,
    )


def _without_prefix(id: str) -> str:
    """`prefix:id` tells vertices of equal contexts apart; the session is `id`."""
    _, colon, rest = id.partition(":")
    return rest if colon and rest else id
