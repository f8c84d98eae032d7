"""Who is let in by an htpasswd file, and what files are refused."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
import trio

from buildengine.errors import UserError
from buildengine.limits import Limit, offload
from worker.registry.server.answers import Refusal
from worker.registry.server.passwords import Passwords, parse

# of `secret`, made with htpasswd -B, and openssl passwd -6 and -5
BCRYPT = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
SHA512 = "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG."
SHA256 = "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM."


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("hashed", [BCRYPT, SHA512, SHA256])
async def test_the_right_password_and_no_other(hashed: str) -> None:
    passwords = Passwords(parse(f"# people\n\nalice:{hashed}\n", name="htpasswd"))
    await passwords.check(basic("alice", "secret"))
    await passwords.check(basic("alice", "secret"))
    for header in (
        basic("alice", "Secret"),
        basic("alice", ""),
        basic("alice", "secret\0"),
        basic("alice", "secret\0and more"),
        basic("bob", "secret"),
        basic("", ""),
        "",
        "Basic",
        "Basic !!!",
        "Basic //79",
        "Bearer abc",
        basic("alice", "secret").replace("Basic", "Digest"),
    ):
        with pytest.raises(Refusal) as caught:
            await passwords.check(header)
        assert caught.value.answer.status == 401
        challenge = dict(caught.value.answer.headers)["WWW-Authenticate"]
        assert challenge.startswith("Basic realm=")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were hashed, in order; two at the same time fail."""
    passwords: list[str] = []
    running: set[str] = set()

    async def counted(function: Callable[..., bool], *arguments: str, limiter: Limit) -> bool:
        passwords.append(arguments[0])
        assert not running
        running.add(arguments[0])
        try:
            return await offload(function, *arguments, limiter=limiter)
        finally:
            running.clear()

    monkeypatch.setattr("worker.registry.server.passwords.offload", counted)
    return passwords


async def test_a_right_password_is_hashed_once_and_a_wrong_one_each_time(hashed: list[str]) -> None:
    passwords = Passwords({"alice": BCRYPT})
    for _ in range(3):
        await passwords.check(basic("alice", "secret"))
        with pytest.raises(Refusal):
            await passwords.check(basic("alice", "wrong"))
    assert hashed == ["secret", "wrong", "wrong", "wrong"]


async def test_a_client_that_begins_on_many_connections_is_hashed_once(hashed: list[str]) -> None:
    passwords = Passwords({"alice": BCRYPT})
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(passwords.check, basic("alice", "secret"))
    assert hashed == ["secret"]


async def test_who_is_no_user_is_not_told_sooner_than_who_is(hashed: list[str]) -> None:
    passwords = Passwords({"alice": BCRYPT})
    for header in (basic("bob", "wrong"), basic("bob", "secret"), ""):
        with pytest.raises(Refusal):
            await passwords.check(header)
    assert hashed == ["wrong", "secret"]


async def test_without_users_nobody_is_let_in() -> None:
    with pytest.raises(Refusal):
        await Passwords({}).check(basic("", ""))


@pytest.mark.parametrize("line", ["alice", ":hash", "alice:secret", "alice:$apr1$abc$def", "alice:{SHA}abc"])
def test_lines_that_are_no_user_and_hash(line: str) -> None:
    with pytest.raises(UserError, match="users: line 2") as caught:
        parse(f"bob:{BCRYPT}\n{line}\n", name="users")
    assert "htpasswd -B" in (caught.value.hint or "")
    assert "secret" not in caught.value.message
