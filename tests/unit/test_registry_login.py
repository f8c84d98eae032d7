"""What a login asks of a registry: basic, tokens, identity tokens, and nothing that would be kept when it said no."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs

import pytest

from buildengine.errors import RegistryError
from tests.fakes.http_server import Reply, Request
from tests.fakes.registry_server import FakeRegistry, fake_registry
from worker.registry.hosts import RegistryConfig, endpoints
from worker.registry.login import log_in
from worker.registry.transport import open_transport
from worker.session import IDENTITY_TOKEN, Credential, SecretBytes


async def attempt(registry: FakeRegistry, user: str, secret: str) -> bytes | None:
    (endpoint,) = endpoints(registry.host, RegistryConfig())
    credential = Credential(username=user, password=SecretBytes(secret.encode()))
    async with open_transport() as transport:
        identity = await log_in(endpoint, credential, transport, user_agent="test")
    return None if identity is None else identity.reveal()


def token_service(request: Request) -> Reply | None:
    if request.path != "/token":
        return None
    bob = "Basic " + base64.b64encode(b"bob:secret").decode()
    form = parse_qs(request.body.decode())
    if request.headers.get("authorization") != bob and form.get("refresh_token") != ["refresh"]:
        return Reply(status=401)
    offline = "offline_token=true" in request.query or form.get("access_type") == ["offline"]
    return Reply(body=json.dumps({"token": "token-1", **({"refresh_token": "refresh"} if offline else {})}).encode())


async def test_basic() -> None:
    async with fake_registry(basic="bob:secret") as registry:
        assert await attempt(registry, "bob", "secret") is None
        with pytest.raises(RegistryError, match="user name or password is wrong") as caught:
            await attempt(registry, "bob", "hunter2")
    assert caught.value.status == 401
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


async def test_a_token_service_gives_an_identity_token() -> None:
    async with fake_registry(bearer="bob:secret") as registry:
        registry.rules.append(token_service)
        assert await attempt(registry, "bob", "secret") == b"refresh"
        (asked,) = registry.server.seen("GET", "/token")
        assert parse_qs(asked.query)["account"] == ["bob"]
        assert await attempt(registry, IDENTITY_TOKEN, "refresh") == b"refresh"
        with pytest.raises(RegistryError) as caught:
            await attempt(registry, "bob", "hunter2")
    assert caught.value.status == 401
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


async def test_a_token_that_the_registry_does_not_take_is_no_login() -> None:
    async with fake_registry(bearer="bob:secret") as registry:
        refused = f'Bearer realm="{registry.server.url}/token",service="fake",error="invalid_token"'
        registry.rules += [token_service, lambda request: Reply(status=401, headers={"www-authenticate": refused})]
        with pytest.raises(RegistryError, match="access denied"):
            await attempt(registry, "bob", "secret")


async def test_an_open_registry_takes_everybody() -> None:
    async with fake_registry() as registry:
        assert await attempt(registry, "bob", "secret") is None
    assert not any("authorization" in request.headers for request in registry.server.requests)


async def test_what_is_no_registry() -> None:
    async with fake_registry(rules=[lambda request: Reply(status=404)]) as registry:
        with pytest.raises(RegistryError, match="login: not found") as caught:
            await attempt(registry, "bob", "secret")
    assert caught.value.status == 404
