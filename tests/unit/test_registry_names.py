"""References, hosts and credentials: how a name becomes a place to ask, and who we are there."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.errors import ConfigError, HostError, RegistryError, UserError
from buildengine.reference import Reference, normalize, parse, parse_repository
from worker.registry import hosts
from worker.registry.creds import DockerCredentials
from worker.registry.dockerconfig import DockerConfig, host_of, parse_docker_config
from worker.registry.hosts import HostConfig, Proxies, RegistryConfig, endpoints, is_loopback, tls
from worker.session import Credential, SecretBytes

HEX = "a" * 64
PINNED = f"sha256:{HEX}"


# --- references ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("me/library/app", "docker.io/me/library/app:latest", "me/library/app:latest"),
        ("ghcr.io/me/app:v1", "ghcr.io/me/app:v1", "ghcr.io/me/app:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x", "[::1]:5000/app:x"),
        (f"app@{PINNED}", f"docker.io/library/app@{PINNED}", f"app@{PINNED}"),
        (f"app:1@{PINNED}", f"docker.io/library/app:1@{PINNED}", f"app:1@{PINNED}"),
        ("a.b/c__d/e-f--g", "a.b/c__d/e-f--g:latest", "a.b/c__d/e-f--g:latest"),
    ],
)
def test_references(text: str, full: str, familiar: str) -> None:
    reference = parse(text)
    assert str(reference) == full == normalize(text)
    assert reference.familiar == familiar
    assert parse(full) == parse(familiar) == reference


def test_the_parts_of_a_reference() -> None:
    assert parse(f"h:5/a/b:t@{PINNED}") == Reference(domain="h:5", path="a/b", tag="t", digest=Digest(PINNED))
    assert parse_repository("app") == Reference(domain="docker.io", path="library/app")
    assert parse("app:1").with_digest(Digest(PINNED)).name == "docker.io/library/app"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a repository name"),
        ("UPPER", "must be lowercase"),
        ("a/UPPER", "must be lowercase"),
        ("app:", "is not a tag"),
        ("app:-x", "is not a tag"),
        ("app:" + "x" * 129, "is not a tag"),
        ("app@", "is not a sha256 digest"),
        ("app@md5:abc", "is not a sha256 digest"),
        ("app@sha256:abc", "invalid digest"),
        (f"app@{PINNED}@{PINNED}", "invalid digest"),
        ("a//b", "is not a repository name"),
        ("/a", "is not a repository name"),
        ("a/", "is not a repository name"),
        ("a..b", "is not a repository name"),
        ("-a", "is not a repository name"),
        ("a b", "is not a repository name"),
        ("a\nb", "is not a repository name"),
        ("../../etc", "is not a registry host"),
        ("h_x.y/a", "is not a registry host"),
        ("h:port/a", "is not a registry host"),
        ("user@h/a", "is not a sha256 digest"),
        ("https://h/a", "is not a registry host"),
        (HEX, "64 hex digits are an image id"),
        ("a/" * 200 + "a", "longer than 255"),
    ],
)
def test_what_is_no_reference(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        parse(text)
    assert caught.value.hint is not None
    with pytest.raises(UserError):
        normalize(text)


HOSTS = st.sampled_from(["", "localhost/", "h.example:5000/", "H/", "[::1]:5000/", "docker.io/", "index.docker.io/"])
NAMES = st.sampled_from(["a", "b0", "c_d", "e.f", "library", "A", "-g", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENDS = st.sampled_from(["", ":t", ":T_.-", ":latest", f"@{PINNED}", f":t@{PINNED}", ":", "@sha256:0", " "])


@given(st.tuples(HOSTS, PATHS, ENDS).map("".join))
def test_a_reference_parses_the_same_again_or_not_at_all(text: str) -> None:
    try:
        reference = parse(text)
    except UserError:
        return
    assert parse(str(reference)) == reference


# --- hosts --------------------------------------------------------------------------------------------------


def bases(domain: str, **configured: HostConfig) -> list[str]:
    config = RegistryConfig(hosts={name.replace("_", "."): value for name, value in configured.items()})
    return [endpoint.base for endpoint in endpoints(domain, config)]


def test_where_a_registry_is() -> None:
    assert bases("docker.io") == ["https://registry-1.docker.io/v2"]
    assert bases("h.example") == ["https://h.example/v2"]
    assert bases("localhost:5000") == ["http://localhost:5000/v2"]
    assert bases("127.0.0.1:5000") == ["http://127.0.0.1:5000/v2"]
    assert bases("h.example", h_example=HostConfig(plain_http=True)) == ["http://h.example/v2"]
    assert bases("localhost", localhost=HostConfig(plain_http=False)) == ["https://localhost/v2"]


def test_mirrors_come_first() -> None:
    mirrors = HostConfig(mirrors=("m.example", "localhost:5000/cache/hub", "http://plain.example/x/"))
    assert bases("docker.io", docker_io=mirrors) == [
        "https://m.example/v2",
        "http://localhost:5000/v2/cache/hub",
        "http://plain.example/v2/x",
        "https://registry-1.docker.io/v2",
    ]
    for wrong in ("", "/path", "ftp://x", "://"):
        with pytest.raises(ConfigError, match="invalid registry mirror"):
            bases("docker.io", docker_io=HostConfig(mirrors=(wrong,)))


def test_credentials_and_tls_are_found_by_what_the_user_calls_it() -> None:
    config = RegistryConfig(hosts={"docker.io": HostConfig(insecure=True, ca=("x.pem",)), "m.example": HostConfig()})
    (hub,) = endpoints("docker.io", config)
    assert hub.credential_key == "docker.io"
    assert tls(hub.host, config) == hosts.Tls(ca=("x.pem",), verify=False)
    assert tls("m.example", config) == tls("other", config) == hosts.Tls()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:1", True),
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("::1", True),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_proxies() -> None:
    proxies = Proxies(http="http://p", https="http://s", bypass=(".corp", "*.lan", "exact:5000", " x.y "))
    assert proxies.choose("http", "h") == "http://p"
    assert proxies.choose("https", "h") == "http://s"
    for host in ("a.corp", "a.b.corp:443", "corp", "a.lan", "exact:5000", "x.y", "localhost:5000", "127.0.0.1"):
        assert proxies.choose("https", host) == "", host
    for host in ("notcorp", "exact:5001", "corp.example"):
        assert proxies.choose("https", host) == "http://s", host
    assert Proxies(https="http://s", bypass=("*",)).choose("https", "h") == ""


# --- docker's configuration ---------------------------------------------------------------------------------


def config_of(**document: object) -> DockerConfig:
    return parse_docker_config(json.dumps(document).encode())


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def shown(credential: Credential | None) -> tuple[str, bytes] | None:
    return None if credential is None else (credential.username, credential.password.reveal())


async def test_credentials_in_the_file() -> None:
    config = config_of(
        auths={
            "https://index.docker.io/v1/": auth("hub:pw:with:colons"),
            "h.example": auth("user:pw\0\0"),
            "https://old.example/v2/": {"username": "u", "password": "p"},
            "token.example:5000": {**auth("<token>:x"), "identitytoken": "secret"},
            "empty.example": {},
        },
        other="ignored",
    )
    credentials = DockerCredentials(config, env={})
    assert shown(await credentials.get("docker.io")) == ("hub", b"pw:with:colons")
    assert shown(await credentials.get("h.example")) == ("user", b"pw")
    assert shown(await credentials.get("old.example")) == ("u", b"p")
    assert shown(await credentials.get("token.example:5000")) == ("<token>", b"secret")
    assert await credentials.get("empty.example") is None
    assert await credentials.get("other.example") is None
    assert "pw" not in repr(config)


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("http://h:5000/v2/", "h:5000"),
        ("h/path", "h"),
    ],
)
def test_keys_are_hosts(server: str, host: str) -> None:
    assert host_of(server) == host


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"{", "is not valid JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"auths": []}', "auths is not an object"),
        (b'{"auths": {"h": 5}}', "auths.h is not an object"),
        (b'{"auths": {"h": {"auth": "***"}}}', "has an `auth` that is not base64"),
        (b'{"auths": {"h": {"auth": "eHh4"}}}', "has an `auth` that is not user:password"),
        (b'{"credsStore": "../../bin/sh"}', "invalid credential helper"),
        (b'{"credHelpers": {"h": "a b"}}', "invalid credential helper"),
        (b'{"credHelpers": {"h": 5}}', "is not a string"),
    ],
)
def test_files_that_docker_did_not_write(raw: bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_docker_config(raw)


class Helpers:
    """Credential helpers in a directory of their own, and how often each was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {"PATH": f"{directory}:/usr/bin:/bin"}

    def add(self, name: str, script: str) -> None:
        path = self.directory / f"docker-credential-{name}"
        path.write_text(f'#!/bin/sh\necho "$1" "$(cat)" >>{self.directory}/asked\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def asked(self) -> list[str]:
        return (self.directory / "asked").read_text().splitlines()


@pytest.fixture
def helpers(tmp_path: Path) -> Helpers:
    return Helpers(tmp_path)


async def test_a_helper_for_a_host_then_the_store_then_the_file(helpers: Helpers) -> None:
    helpers.add("store", """echo '{"ServerURL": "x", "Username": "store", "Secret": "s1"}'""")
    helpers.add("own", """echo '{"Username": "<token>", "Secret": "s2"}'""")
    helpers.add("none", "echo credentials not found in native keychain; exit 1")
    config = config_of(
        auths={"file.example": auth("file:s3")},
        credsStore="store",
        credHelpers={"own.example": "own", "file.example": "none", "nobody.example": "none"},
    )
    credentials = DockerCredentials(config, env=helpers.env)
    assert shown(await credentials.get("any.example")) == ("store", b"s1")
    assert shown(await credentials.get("docker.io")) == ("store", b"s1")
    assert shown(await credentials.get("own.example")) == ("<token>", b"s2")
    assert shown(await credentials.get("file.example")) == ("file", b"s3")
    assert await credentials.get("nobody.example") is None
    await credentials.get("own.example")
    assert helpers.asked == [
        "get any.example",
        "get https://index.docker.io/v1/",
        "get own.example",
        "get file.example",
        "get nobody.example",
    ]


async def test_helpers_that_fail_say_nothing_of_what_they_know(helpers: Helpers) -> None:
    helpers.add("broken", "echo hunter2; echo hunter2 >&2; exit 3")
    helpers.add("nonsense", "echo hunter2")
    helpers.add("empty", "echo '{}'")
    with pytest.raises(RegistryError, match=r"docker-credential-broken get failed for h with exit code 3") as caught:
        await DockerCredentials(DockerConfig(store="broken"), env=helpers.env).get("h")
    assert "hunter2" not in str(caught.value) + str(caught.value.hint)
    with pytest.raises(HostError, match="an answer that is not a credential") as wrong:
        await DockerCredentials(DockerConfig(store="nonsense"), env=helpers.env).get("h")
    assert "hunter2" not in str(wrong.value)
    assert await DockerCredentials(DockerConfig(store="empty"), env=helpers.env).get("h") is None
    with pytest.raises(HostError, match="'docker-credential-gone' is not installed"):
        await DockerCredentials(DockerConfig(store="gone"), env=helpers.env).get("h")


def test_secrets_do_not_show() -> None:
    credential = Credential(username="u", password=SecretBytes(b"hunter2"))
    assert "hunter2" not in f"{credential!r} {DockerConfig(auths={'h': credential})!r}"
