"""Registries behind TLS: authorities and client certificates by configuration, and what is said when one is wrong."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from buildengine.config import KeyPair, RegistryConfig
from tests.fakes.commands import Commands, open_commands
from tests.integration.test_registry_docker import Built, DockerRegistry, certificate
from worker.registry.configured import registry_config
from worker.registry.hosts import KeyPair as Pair
from worker.registry.hosts import Tls
from worker.registry.transport import open_transport


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: `server` and `client` of the authority `ca`, and `other`, of another one."""
    directory = tmp_path_factory.mktemp("keys")
    certificate(directory, "ca")
    for name in ("server", "client"):
        certificate(directory, name, signer=str(directory / "ca"))
    certificate(directory, "other")
    return directory


@pytest.fixture(scope="module")
def registry(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """It shows the certificate `server`, and talks to those only who show one of `ca`."""
    directory = tmp_path_factory.mktemp("tls")
    tls = {"certificate": f"{keys}/server.pem", "key": f"{keys}/server.key", "clientcas": [f"{keys}/ca.pem"]}
    running = DockerRegistry(directory / "registry", http={"tls": tls})
    source = Built(size=1000).write(directory / "oci", "docker.io/library/app:1")
    for name, kind in (("client.pem", "client.cert"), ("client.key", "client.key")):
        (directory / "certs").mkdir(exist_ok=True)
        shutil.copy(keys / name, directory / "certs" / kind)
    running.push(f"oci:{source}:1", "app:1", f"--dest-cert-dir={directory}/certs")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with open_commands() as running:
        yield running


def pull(commands: Commands, directory: Path, host: str, *lines: str) -> str:
    """What `pybuild pull` prints with these lines about the registry in its configuration."""
    configuration = directory / "pybuild.toml"
    configuration.write_text("\n".join([f'[registry."{host}"]', *lines]))
    return commands.run("--config", configuration, "--root", directory / "root", "pull", f"{host}/app:1").text


OTHER = ('[[registry."{host}".keypair]]', 'cert = "{keys}/other.pem"', 'key = "{keys}/other.key"')
PAIR = ('[[registry."{host}".keypair]]', 'cert = "{keys}/client.pem"', 'key = "{keys}/client.key"')


@pytest.mark.parametrize(
    "lines",
    [
        ("http = false", 'ca = ["{keys}/ca.pem"]', *PAIR),
        ("http = false", "insecure = true", *PAIR),
    ],
)
def test_what_the_configuration_allows(
    commands: Commands, keys: Path, registry: DockerRegistry, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    text = pull(commands, tmp_path, registry.host, *(line.format(host=registry.host, keys=keys) for line in lines))
    assert "Downloaded newer image" in text


def test_what_is_pushed_is_encrypted(commands: Commands, keys: Path, registry: DockerRegistry, tmp_path: Path) -> None:
    host, archive = registry.host, tmp_path / "other.tar"
    lines = [f'[registry."{host}"]', "http = false", f'ca = ["{keys}/ca.pem"]', *PAIR]
    (tmp_path / "pybuild.toml").write_text("\n".join(line.format(host=host, keys=keys) for line in lines))
    built = Built(size=2_000_000)
    layout = built.write(tmp_path / "oci", f"{host}/pushed:1")
    subprocess.run(["tar", "-C", layout, "-cf", archive, "."], check=True)
    for arguments in (("image", "load", "-i", archive), ("push", f"{host}/pushed:1")):
        ended = commands.run("--config", tmp_path / "pybuild.toml", "--root", tmp_path / "root", *arguments)
        assert ended.status == 0, ended.text
    pulled = ("--config", tmp_path / "pybuild.toml", "--root", tmp_path / "again", "pull", f"{host}/pushed:1")
    assert "Downloaded newer image" in commands.run(*pulled).text


@pytest.mark.parametrize(
    ("lines", "error", "hint"),
    [
        (("http = false", *PAIR), "its certificate is not trusted", "name the authority that signed it: `ca` in"),
        (
            ("http = false", 'ca = ["{keys}/other.pem"]', *PAIR),
            "its certificate is not trusted",
            'or a .crt file in /etc/docker/certs.d/{host}',
        ),
        (("http = false", 'ca = ["{keys}/ca.pem"]'), "certificate", "it may want a client certificate: `keypair` in"),
        (("http = false", 'ca = ["{keys}/ca.pem"]', *OTHER), "cannot reach", "it may want a client certificate"),
        (("http = false", 'ca = ["{keys}/gone.pem"]', *PAIR), "cannot use one of the TLS files", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_at_once(
    commands: Commands,
    keys: Path,
    registry: DockerRegistry,
    tmp_path: Path,
    lines: tuple[str, ...],
    error: str,
    hint: str,
) -> None:
    text = pull(commands, tmp_path, registry.host, *(line.format(host=registry.host, keys=keys) for line in lines))
    assert "error: " in text
    assert error in text
    assert hint.format(host=registry.host) in text


def test_a_directory_of_certificates(commands: Commands, keys: Path, registry: DockerRegistry, tmp_path: Path) -> None:
    """As docker's certs.d: *.crt are authorities, x.cert and x.key a client's certificate."""
    place = tmp_path / "certs"
    place.mkdir()
    for name, kind in (("ca.pem", "ca.crt"), ("client.pem", "me.cert"), ("client.key", "me.key")):
        shutil.copy(keys / name, place / kind)
    assert "Downloaded newer image" in pull(
        commands, tmp_path, registry.host, "http = false", 'tlsconfigdir = ["certs"]'
    )


def test_dockers_own_directories_are_read(tmp_path: Path) -> None:
    host = "registry.example:5000"
    (tmp_path / host).mkdir()
    for name in ("b.crt", "a.crt", "me.cert", "me.key", "readme"):
        (tmp_path / host / name).touch()
    given = RegistryConfig(ca=(Path("/own.pem"),), keypairs=(KeyPair(key=Path("/k"), cert=Path("/c")),))
    found = registry_config({host: given}, {}, certificates=tmp_path).host(host)
    assert found.ca == ("/own.pem", f"{tmp_path}/{host}/a.crt", f"{tmp_path}/{host}/b.crt")
    assert [(pair.certificate, pair.key) for pair in found.key_pairs] == [
        ("/c", "/k"),
        (f"{tmp_path}/{host}/me.cert", f"{tmp_path}/{host}/me.key"),
    ]
    alone = registry_config({}, {}, certificates=tmp_path)
    assert len(alone.host(host).ca) == 2
    assert alone.host("other").ca == ()
    assert registry_config({}, {}, certificates=tmp_path / "gone").hosts == {}


def test_who_does_not_speak_tls(commands: Commands, tmp_path: Path) -> None:
    """A plain registry that is taken for an encrypted one, and the other way round."""
    plain = DockerRegistry(tmp_path / "registry")
    try:
        text = pull(commands, tmp_path, plain.host, "http = false")
        assert "it does not speak TLS" in text
        assert f'if it is a plain HTTP registry, say `http = true` in [registry."{plain.host}"]' in text
    finally:
        plain.stop()


def test_an_encrypted_registry_taken_for_a_plain_one(
    commands: Commands, registry: DockerRegistry, tmp_path: Path
) -> None:
    text = pull(commands, tmp_path, registry.host)
    assert "it speaks TLS, and was asked without" in text
    assert f'say `http = false` in [registry."{registry.host}"]' in text


async def test_through_the_tunnel_of_a_proxy(keys: Path, registry: DockerRegistry) -> None:
    """The proxy sees where to, and what it wants to see of us; nothing of what is said there."""
    heads: list[bytes] = []

    async def tunnel(near: trio.SocketStream) -> None:
        heads.append(await near.receive_some(65536))
        far = await trio.open_tcp_stream("127.0.0.1", int(registry.host.rpartition(":")[2]))
        await near.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(relay, near, far)
            await relay(far, near)
            nursery.cancel_scope.cancel()

    async def relay(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)

    pair = Pair(certificate=f"{keys}/client.pem", key=f"{keys}/client.key")
    tls = Tls(ca=(f"{keys}/ca.pem",), key_pairs=(pair,))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, tunnel, 0, host="127.0.0.1"))
        proxy = f"me:secret@127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_transport(lambda host: tls, lambda scheme, host: proxy) as transport:
            for _ in range(2):
                async with transport.send("GET", f"https://{registry.host}/v2/app/tags/list", {}) as response:
                    assert b'"1"' in await response.read(1000)
        nursery.cancel_scope.cancel()
    assert [head.partition(b" HTTP")[0] for head in heads] == [b"CONNECT " + registry.host.encode()]
    assert b": Basic bWU6c2VjcmV0\r\n" in heads[0]
