"""Who is told which credentials: challenges, tokens, redirects, and registries that want what is not theirs."""

from __future__ import annotations

import json

import pytest
import trio

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.platform import parse
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.registry_server import Image, Logins, MemorySink, client, fake_registry, fetch
from worker.oci import types
from worker.registry.auth import Challenge, merged_scopes, parse_challenges
from worker.registry.hosts import HostConfig
from worker.session import SecretBytes, Token

AMD64 = parse("linux/amd64")


# --- reading challenges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://t/",service=s,scope="a:b:c,d"',
            [("bearer", {"realm": "https://t/", "service": "s", "scope": "a:b:c,d"})],
        ),
        ('Bearer realm="a", Basic realm="b"', [("bearer", {"realm": "a"}), ("basic", {"realm": "b"})]),
        ("Negotiate, Basic realm=b", [("negotiate", {}), ("basic", {"realm": "b"})]),
        ('BEARER  Realm = "q\\"uoted" ,  x=y', [("bearer", {"realm": 'q"uoted', "x": "y"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="unclosed', [("bearer", {})]),
        ("\x00\x01", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = parse_challenges(header)
    assert found[: len(expected)] == tuple(Challenge(scheme=s, parameters=p) for s, p in expected)


def test_a_challenge_without_end_is_read_soon() -> None:
    for piece in (",", 'a="', "a=b,", "x ", '"', "\\", " "):
        parse_challenges("Bearer " + piece * 100_000)


def test_scopes_are_merged_by_resource() -> None:
    assert merged_scopes("repository:a:pull", "repository:b:pull repository:a:push,pull", "registry:catalog:*", "") == (
        "registry:catalog:* repository:a:pull,push repository:b:pull"
    )
    assert merged_scopes("repository:h:5000/x:pull") == "repository:h:5000/x:pull"
    assert merged_scopes("plain") == "plain"


# --- answering them -----------------------------------------------------------------------------------------


async def test_basic_authentication() -> None:
    async with fake_registry(basic="user:secret", blobs={str(Digest.sha256(b"data")): b"data"}) as fake:
        assert await fetch(fake, b"data", Logins(**{fake.host: "user:secret"})) == b"data"
        with pytest.raises(RegistryError, match="user name or password is wrong"):
            await fetch(fake, b"data", Logins(**{fake.host: "user:wrong"}))
        with pytest.raises(RegistryError, match="authentication required") as caught:
            await fetch(fake, b"data")
    assert "pybuild login" in (caught.value.hint or "")


async def test_tokens_of_somebody_who_fetches_them() -> None:
    """The secret is not asked for; where he has none, it is."""
    asked: list[tuple[str, str, tuple[str, ...]]] = []

    class Fetching:
        token: Token | None = Token(value=SecretBytes(b"token-mine"), life=60)

        async def fetch(self, host: str, *, realm: str, service: str, scopes: tuple[str, ...]) -> Token | None:
            asked.append((host, realm, scopes))
            return self.token

    fetching, image = Fetching(), Image()
    async with fake_registry(bearer="user:secret") as fake:
        fake.put("app", "1", image)
        logins = Logins()
        logins.tokens = fetching
        async with client(logins) as registry:
            await registry.resolve(reference.parse(f"{fake.host}/app:1"), AMD64)
        assert asked == [(fake.host, f"{fake.server.url}/token", ("repository:app:pull",))]
        assert fake.tokens_given == 0
        fetching.token = None
        logins.logins[fake.host] = "user:secret"
        async with client(logins) as registry:
            await registry.resolve(reference.parse(f"{fake.host}/app:1"), AMD64)
        assert fake.tokens_given == 1


async def test_a_token_is_fetched_once_and_used_for_everything() -> None:
    image = Image()
    async with fake_registry(bearer="user:secret") as fake:
        fake.put("app", "1", image)
        async with client(Logins(**{fake.host: "user:secret"})) as registry:
            pulled = await registry.resolve(reference.parse(f"{fake.host}/app:1"), AMD64)
            for layer, _ in pulled.layers:
                await registry.fetch_blob(layer, (pulled.origin,), MemorySink())
        (token,) = fake.server.seen("GET", "/token")
    assert token.query == "service=fake&scope=repository%3Aapp%3Apull&account=user"
    assert sum(1 for r in fake.server.requests if "authorization" not in r.headers) == 1


async def test_anonymous_tokens_and_wrong_credentials() -> None:
    async with fake_registry(bearer="anonymous", blobs={str(Digest.sha256(b"data")): b"data"}) as fake:
        assert await fetch(fake, b"data") == b"data"
        fake.bearer = "user:secret"
        with pytest.raises(RegistryError, match="bad credentials"):
            await fetch(fake, b"data", Logins(**{fake.host: "user:wrong"}))


async def test_a_token_that_ended_early_is_renewed() -> None:
    data = {str(Digest.sha256(b"data")): b"data"}
    async with fake_registry(bearer="anonymous", blobs=data) as fake, client() as registry:
        wanted = types.Descriptor(media_type="x", digest=Digest.sha256(b"data"), size=4)
        await registry.fetch_blob(wanted, (f"{fake.host}/app",), MemorySink())

        def only_the_second(request: Request) -> Reply | None:
            old = request.headers.get("authorization") == "Bearer token-1"
            challenge = f'Bearer realm="{fake.server.url}/token",service="fake",error="invalid_token"'
            return Reply(status=401, headers={"www-authenticate": challenge}) if old else None

        fake.rules.append(only_the_second)
        await trio.sleep(0.001)  # the clock moves on: the token is not this request's own
        await registry.fetch_blob(wanted, (f"{fake.host}/app",), MemorySink())
    assert fake.tokens_given == 2


@pytest.mark.parametrize(("error", "tokens"), [("", 2), (',error="invalid_token"', 1)])
async def test_a_fresh_token_that_was_not_seen_is_followed_by_one_more(error: str, tokens: int) -> None:
    """Where the registry says what is wrong with it, another one is no better."""

    def not_the_first(request: Request) -> Reply | None:
        if request.headers.get("authorization") not in (None, "Bearer token-1") or request.path == "/token":
            return None
        challenge = f'Bearer realm="{fake.server.url}/token",service="fake"'
        return Reply(status=401, headers={"www-authenticate": challenge + error})

    async with fake_registry(bearer="anonymous", blobs={str(Digest.sha256(b"data")): b"data"}) as fake:
        fake.rules.append(not_the_first)
        if error:
            with pytest.raises(RegistryError, match="access denied"):
                await fetch(fake, b"data")
        else:
            assert await fetch(fake, b"data") == b"data"
    assert fake.tokens_given == tokens


async def test_a_wider_scope_is_asked_for_when_the_first_does_not_do() -> None:
    def narrow(request: Request) -> Reply | None:
        if request.headers.get("authorization") != "Bearer token-1":
            return None
        challenge = f'Bearer realm="{fake.server.url}/token",service="fake",scope="repository:app:pull,push other"'
        return Reply(status=401, headers={"www-authenticate": challenge + ',error="insufficient_scope"'})

    async with fake_registry(bearer="anonymous", blobs={str(Digest.sha256(b"data")): b"data"}, rules=[narrow]) as fake:
        assert await fetch(fake, b"data") == b"data"
        queries = [r.query for r in fake.server.seen("GET", "/token")]
    assert queries[1] == "service=fake&scope=other&scope=repository%3Aapp%3Apull%2Cpush"


async def test_a_registry_that_is_never_satisfied_is_left_soon() -> None:
    def never(request: Request) -> Reply | None:
        count = len(fake.server.requests)
        challenge = f'Bearer realm="{fake.server.url}/token",service="s{count}",scope="repository:app:x{count}"'
        return None if request.path == "/token" else Reply(status=401, headers={"www-authenticate": challenge})

    async with fake_registry(bearer="anonymous", rules=[never]) as fake:
        with pytest.raises(RegistryError) as caught:
            await fetch(fake, b"data")
        assert caught.value.status == 401
        assert len(fake.server.requests) <= 6


@pytest.mark.parametrize(
    ("challenge", "problem"),
    [
        ("Negotiate", "asks for authentication by negotiate"),
        ("", "asks for authentication by nothing"),
        ('Bearer service="x"', "names the token service '', which is not"),
        ('Bearer realm="file:///etc/passwd"', "which is not an http URL"),
        ('Bearer realm="http://tokens.example/"', "is not encrypted"),
        ('Bearer realm="https://user:pw@tokens.example/"', "which is not an http URL"),
    ],
)
async def test_challenges_that_are_not_met(challenge: str, problem: str) -> None:
    async with fake_registry(
        rules=[lambda request: Reply(status=401, headers={"www-authenticate": challenge})]
    ) as fake:
        with pytest.raises(RegistryError, match=problem):
            await fetch(fake, b"data", Logins(**{fake.host: "user:secret"}))
        assert len(fake.server.requests) == 1


async def test_credentials_stay_with_their_registry_on_a_redirect() -> None:
    data = b"data"
    async with serve(lambda request: Reply(body=data)) as other:

        def away(request: Request) -> Reply | None:
            if "authorization" not in request.headers or "/blobs/" not in request.path:
                return None
            return Reply(status=307, headers={"location": f"{other.url}/signed?key=1"})

        async with fake_registry(basic="user:secret", rules=[away]) as fake:
            assert await fetch(fake, data, Logins(**{fake.host: "user:secret"})) == data
    (request,) = other.requests
    assert "authorization" not in request.headers
    assert request.target == "/signed?key=1"


async def test_a_challenge_from_where_a_redirect_led_gets_no_credentials() -> None:
    challenge = {"www-authenticate": 'Basic realm="gimme"'}
    async with (
        serve(lambda request: Reply(status=401, headers=challenge)) as other,
        fake_registry(rules=[lambda request: Reply(status=302, headers={"location": f"{other.url}/x"})]) as fake,
    ):
        logins = Logins(**{fake.host: "user:secret", other.host: "user:secret"})
        with pytest.raises(RegistryError):
            await fetch(fake, b"data", logins)
    assert len(other.requests) == 1
    assert "authorization" not in other.requests[0].headers


async def test_credentials_of_the_registry_are_not_offered_to_its_mirror() -> None:
    async with fake_registry(basic="a:b") as mirror, fake_registry() as origin:
        origin.put("app", "1", Image())
        logins = Logins(**{origin.host: "user:secret"})
        async with client(logins, hosts={origin.host: HostConfig(mirrors=(mirror.host,))}) as registry:
            await registry.resolve(reference.parse(f"{origin.host}/app:1"), AMD64)
    assert mirror.server.requests
    assert all("authorization" not in request.headers for request in mirror.server.requests)


async def test_a_redirect_loop_ends() -> None:
    def loop(request: Request) -> Reply:
        return Reply(status=302, headers={"location": request.path})

    async with fake_registry(rules=[loop]) as fake:
        with pytest.raises(SourceError, match="more than 10 redirects"):
            await fetch(fake, b"data")
        assert len(fake.server.requests) == 11


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "http://[::1", "gopher:x", "//"])
async def test_redirects_to_what_is_not_http(target: str) -> None:
    async with fake_registry(rules=[lambda request: Reply(status=302, headers={"location": target})]) as fake:
        with pytest.raises(SourceError):
            await fetch(fake, b"data")


async def test_secrets_do_not_show_in_errors() -> None:
    async with serve(lambda request: Reply(status=500)) as other:
        location = f"http://user:hunter2@{other.host}/blob?X-Amz-Signature=hunter2"
        async with fake_registry(rules=[lambda request: Reply(status=302, headers={"location": location})]) as fake:
            with pytest.raises(SourceError) as caught:
                await fetch(fake, b"data")
    assert "hunter2" not in str(caught.value) + json.dumps(caught.value.hint)
