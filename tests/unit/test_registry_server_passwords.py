"""Who is let in by an htpasswd file, and what files are refused."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

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


async def test_a_right_password_is_hashed_once_and_a_wrong_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    async def counted(function: Callable[..., bool], *arguments: str, limiter: Limit) -> bool:
        hashed.append(arguments[0])
        return await offload(function, *arguments, limiter=limiter)

    monkeypatch.setattr("worker.registry.server.passwords.offload", counted)
    passwords = Passwords({"alice": BCRYPT})
    for _ in range(3):
        await passwords.check(basic("alice", "secret"))
        with pytest.raises(Refusal):
            await passwords.check(basic("alice", "wrong"))
    assert hashed == ["secret", "wrong", "wrong", "wrong"]


@pytest.mark.parametrize("line", ["alice", ":hash", "alice:secret", "alice:$apr1$abc$def", "alice:{SHA}abc"])
def test_lines_that_are_no_user_and_hash(line: str) -> None:
    with pytest.raises(UserError, match="users: line 2") as caught:
        parse(f"bob:{BCRYPT}\n{line}\n", name="users")
    assert "htpasswd -B" in (caught.value.hint or "")
    assert "secret" not in caught.value.message
