"""The registry of sessions and the byte stream that carries them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from buildengine.api.control_pb2 import BytesMessage
from buildengine.api.rpc import Code, RpcError
from buildengine.api.sessions import ClientSession, Health, SessionGone, Sessions
from buildengine.api.tunnel import CHUNK, Tunnel


class Call:
    """A `Control.Session` call whose client says `messages`, and then nothing, hangs up or breaks."""

    def __init__(self, *messages: bytes, metadata: tuple[tuple[str, str], ...] = (), end: str = "hangs up") -> None:
        self.metadata = metadata
        self.path = "/moby.buildkit.v1.Control/Session"
        self.sent: list[bytes] = []
        self._messages = [BytesMessage(data=data) for data in messages]
        self._end = end
        self.more = trio.Event()

    async def send_initial_metadata(self, metadata: Any) -> None:
        raise AssertionError("a tunnel has no metadata to tell")

    async def send(self, message: BytesMessage) -> None:
        if self._end == "breaks":
            raise RpcError(Code.CANCELLED, "gone")
        self.sent.append(message.data)

    async def receive(self) -> BytesMessage | None:
        if self._messages:
            return self._messages.pop(0)
        if self._end == "breaks":
            raise RpcError(Code.CANCELLED, "gone")
        if self._end == "is silent":
            await self.more.wait()
        return None

    async def receive_many(self) -> list[BytesMessage]:
        messages, self._messages = self._messages, []
        return messages or [message for message in [await self.receive()] if message is not None]


def test_slow_is_not_dead_and_twice_without_an_answer_is() -> None:
    health = Health()
    assert health.timeout == 30
    assert health.checked(True, 40.0)
    assert health.timeout == 60
    assert health.checked(False, 60.0)
    assert not health.checked(False, 1.0)


@pytest.mark.parametrize(("successes", "lives"), [(4, False), (5, True)])
def test_five_answers_make_up_for_a_failure(successes: int, lives: bool) -> None:
    health = Health()
    health.checked(False, 1.0)
    for _ in range(successes):
        assert health.checked(True, 0.0)
    assert health.checked(False, 1.0) is lives


async def test_the_stream_is_the_messages_joined() -> None:
    call = Call(b"", b"hello", b" world")
    tunnel = Tunnel(call)
    assert [await tunnel.receive_some(3), await tunnel.receive_some(3), await tunnel.receive_some()] == [
        b"hel",
        b"lo ",
        b"world",
    ]
    assert not tunnel.ended.is_set()
    assert await tunnel.receive_some() == b""
    assert tunnel.ended.is_set()


async def test_what_is_sent_is_cut_into_messages() -> None:
    call = Call()
    await Tunnel(call).send_all(bytes(2 * CHUNK + 1))
    assert [len(data) for data in call.sent] == [CHUNK, CHUNK, 1]


async def test_a_call_that_breaks_is_a_stream_that_breaks() -> None:
    tunnel = Tunnel(Call(end="breaks"))
    with pytest.raises(trio.BrokenResourceError):
        await tunnel.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await tunnel.send_all(b"x")
    await tunnel.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await tunnel.receive_some()


def described(id: str) -> tuple[tuple[str, str], ...]:
    return (
        ("x-docker-expose-session-uuid", id),
        ("x-docker-expose-session-name", "a client"),
        ("x-docker-expose-session-sharedkey", "key"),
        ("x-docker-expose-session-grpc-method", "/moby.filesync.v1.FileSync/DiffCopy"),
    )


async def test_whoever_comes_first_waits_for_the_session(autojump_clock: trio.testing.MockClock) -> None:
    sessions, call = Sessions(), Call(metadata=described("one"), end="is silent")
    found: list[ClientSession] = []

    async def find() -> None:
        found.append(await sessions.get("a-prefix:one"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(find)
        await trio.sleep(1)
        nursery.start_soon(sessions.serve, call)
        await trio.sleep(1)
        (session,) = found
        assert (session.id, session.name, session.shared_key) == ("one", "a client", "key")
        assert session.supports("/moby.filesync.v1.FileSync/diffcopy")
        assert not session.supports("/moby.filesync.v1.FileSend/DiffCopy")
        call.more.set()
    assert session.ended
    assert len(sessions) == 0


async def test_a_session_that_does_not_come_is_not_waited_for_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(SessionGone, match="no active session for two"):
        await Sessions().get("two")
    assert trio.current_time() - began == 5


async def test_a_client_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    sessions, call = Sessions(), Call(metadata=described("one"), end="is silent")
    began = trio.current_time()
    await sessions.serve(call)
    assert trio.current_time() - began == 5 + 30 + 45  # slower than the last time by half


async def test_who_comes_again_takes_the_place_of_the_lost_connection(autojump_clock: trio.testing.MockClock) -> None:
    sessions = Sessions()
    old, new = (Call(metadata=described("one"), end="is silent") for _ in range(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.serve, old)
        await trio.sleep(1)
        first = await sessions.get("one")
        nursery.start_soon(sessions.serve, new)
        await trio.sleep(1)
        second = await sessions.get("one")
        assert second is not first
        old.more.set()
        await trio.sleep(1)
        assert await sessions.get("one") is second
        new.more.set()


@pytest.mark.parametrize("change", [lambda m: m[1:], lambda m: (("x-docker-expose-session-uuid", "x" * 2000), *m[1:])])
async def test_a_session_has_an_id(change: Callable[[Any], Any]) -> None:
    with pytest.raises(RpcError, match="has an id"):
        await Sessions().serve(Call(metadata=change(described("one")), end="is silent"))
