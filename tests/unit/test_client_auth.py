"""What the client says to a daemon of the user's logins: keys by which tokens are shared, and the tokens themselves."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
from google.protobuf.message import Message
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from buildengine.api import auth_pb2 as pb
from buildengine.api.rpc import Code, RpcError
from buildengine.client.auth import Auth, Logins
from buildengine.client.authority import seed
from buildengine.errors import RegistryError, SourceError
from tests.builds import write
from tests.fakes.http_server import Reply, serve
from tests.fakes.registry_server import fake_registry
from tests.fakes.server_call import ServedCall
from tests.fakes.server_call import serve as call

HOST, SALT = "registry.example", b"s" * 32


def logins(place: Path, *hosts: str, **environment: str) -> Logins:
    auths = {host: {"auth": base64.b64encode(b"user:secret").decode()} for host in hosts}
    return Logins(directory=write(place, {"config.json": json.dumps({"auths": auths})}), environment=environment)


def ask(auth: Auth, method: str, request: Message) -> Any:
    served = ServedCall(request)
    asyncio.run(call(auth.services, f"/moby.filesync.v1.Auth/{method}", served))
    return served.sent[0]


def public_key(auth: Auth, host: str = HOST, salt: bytes = SALT) -> bytes:
    key: bytes = ask(auth, "GetTokenAuthority", pb.GetTokenAuthorityRequest(Host=host, Salt=salt)).PublicKey
    return key


def test_a_key_is_of_the_seed_that_docker_keeps(tmp_path: Path) -> None:
    """As BuildKit makes it: HMAC-SHA256 of the seed, with the salt as its key, is the secret key of Ed25519."""
    auth = Auth(logins(tmp_path, HOST))
    seeds = {HOST: {"Seed": base64.b64encode(bytes(range(16))).decode()}, "other": {"Seed": "AAAA"}}
    (tmp_path / ".token_seed").write_text(json.dumps(seeds))
    key = public_key(auth)
    assert key.hex() == "e43d8196cb101849fd105421b862ccaeb1718b2c7be52f11740d45a00ddd860c"
    request = pb.VerifyTokenAuthorityRequest(Host=HOST, Salt=SALT, Payload=b"payload")
    signed = ask(auth, "VerifyTokenAuthority", request).Signed
    assert VerifyKey(key).verify(signed) == b"payload"
    with pytest.raises(BadSignatureError):
        VerifyKey(public_key(auth, salt=b"of another daemon")).verify(signed)
    assert json.loads((tmp_path / ".token_seed").read_text()) == seeds


def test_who_shares_a_key(tmp_path: Path) -> None:
    first = public_key(Auth(logins(tmp_path / "a", HOST)))
    assert stat.S_IMODE((tmp_path / "a/.token_seed").stat().st_mode) == 0o600
    assert public_key(Auth(logins(tmp_path / "a", HOST))) == first
    assert public_key(Auth(logins(tmp_path / "b", HOST))) != first
    nobody = public_key(Auth(logins(tmp_path / "a")))
    assert nobody == public_key(Auth(logins(tmp_path / "c"))) != first
    assert not (tmp_path / "c/.token_seed").exists()


def test_a_directory_that_is_not_ours_to_write(tmp_path: Path) -> None:
    """Then it is this process's own."""
    place = Path("/sys/kernel")  # where not even root makes a file
    assert len(seed(place, HOST)) == 16
    assert seed(place, HOST) != seed(place, HOST)
    (tmp_path / ".token_seed").write_text("no JSON")
    assert seed(tmp_path, HOST) == seed(tmp_path, HOST)


def test_without_tokens_of_the_client(tmp_path: Path) -> None:
    auth = Auth(logins(tmp_path, HOST, BUILDKIT_NO_CLIENT_TOKEN="true"))
    with pytest.raises(RpcError, match="client side tokens disabled") as caught:
        public_key(auth)
    assert caught.value.code is Code.UNAVAILABLE
    assert ask(auth, "Credentials", pb.CredentialsRequest(Host=HOST)).Secret == "secret"


async def fetched(auth: Auth, host: str, realm: str) -> Any:
    request = pb.FetchTokenRequest(Host=host, Realm=realm, Service="fake", Scopes=["repository:app:pull"])
    return await trio.to_thread.run_sync(ask, auth, "FetchToken", request)


async def test_a_token(tmp_path: Path) -> None:
    async with fake_registry(bearer="user:secret") as fake:
        realm = f"{fake.server.url}/token"
        answer = await fetched(Auth(logins(tmp_path, fake.host)), fake.host, realm)
        assert (answer.Token, answer.ExpiresIn) == ("token-1", 300)
        (asked,) = fake.server.seen("GET", "/token")
        assert asked.query == "service=fake&scope=repository%3Aapp%3Apull&account=user"
        with pytest.raises(RegistryError, match="bad credentials"):
            await fetched(Auth(logins(tmp_path / "nobody")), fake.host, realm)


async def test_no_password_goes_where_a_daemon_only_says(tmp_path: Path) -> None:
    async with serve(lambda request: Reply(body=b"{}")) as thief:
        auth = Auth(logins(tmp_path, HOST))
        realm = thief.url.replace("127.0.0.1", "127.0.0.1.nip.example")
        with pytest.raises(RegistryError, match="is not encrypted"):
            await fetched(auth, HOST, realm)
    assert thief.requests == []


async def test_a_token_service_that_is_not_there(tmp_path: Path) -> None:
    async with serve(lambda request: Reply(status=200, cut=0, body=b"{}")) as server:
        with pytest.raises(SourceError) as caught:
            await fetched(Auth(logins(tmp_path, server.host)), server.host, f"{server.url}/token")
    assert "BUILDKIT_NO_CLIENT_TOKEN=1" in (caught.value.hint or "")


async def test_a_build_that_ends_does_not_wait_for_a_token(tmp_path: Path) -> None:
    asked = trio.Event()

    async def never(request: Any) -> Reply:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    async with serve(never) as server:
        auth, host, token = Auth(logins(tmp_path, server.host)), server.host, trio.lowlevel.current_trio_token()

        async def cancelled() -> bool:
            request = pb.FetchTokenRequest(Host=host, Realm=f"{server.url}/token")
            fetching = asyncio.create_task(
                call(auth.services, "/moby.filesync.v1.Auth/FetchToken", ServedCall(request))
            )
            await asyncio.to_thread(trio.from_thread.run, asked.wait, trio_token=token)
            fetching.cancel()
            await asyncio.wait((fetching,))
            return fetching.cancelled()

        assert await trio.to_thread.run_sync(asyncio.run, cancelled())
