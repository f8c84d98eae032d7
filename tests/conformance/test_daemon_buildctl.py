"""buildctl before pybuildd: the commands of BuildKit's own client, and what they print."""

from __future__ import annotations

import base64
import json
import ssl
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from llb.definition import Definition
from llb.sources import local
from llb.state import mkdir, scratch
from tests.builds import FIXTURES, Store, write
from tests.conformance.buildctl import ctl, raw
from tests.fakes.daemon import Daemon, daemon
from tests.fakes.http_server import Request
from tests.fakes.registry_server import Image, fake_registry
from tests.integration.test_registry_docker import certificate

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base
COPY a.txt /srv/
RUN --mount=type=secret,id=word cat /srv/a.txt /run/secrets/word > /srv/both
"""


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("buildctl")
    store = store_with_base.copy(place / "root")
    with daemon(store.root, place) as started:
        yield started


def files(name: str) -> Definition:
    return scratch().file(mkdir("/srv").mkfile("/srv/it", name.encode()), name=f"write {name}").marshal()


def test_debug_workers(running: Daemon) -> None:
    assert "linux/amd64" in ctl(running, "debug", "workers")
    told = ctl(running, "debug", "workers", "--verbose")
    assert "org.mobyproject.buildkit.worker.executor:" in told
    assert "BuildKit:" in told
    assert ctl(running, "debug", "workers", "--filter", "id==nobody").splitlines()[1:] == []


def test_debug_info(running: Daemon) -> None:
    assert ctl(running, "--wait", "debug", "info").startswith("BuildKit: pybuild v0.26")


def test_a_definition_on_standard_input(running: Daemon, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    told = ctl(running, "build", "--progress=plain", "-o", f"type=oci,dest={archive}", stdin=files("llb").to_bytes())
    assert "write llb" in told
    assert "exporting to oci image format" in told
    with tarfile.open(archive) as opened:
        assert {"oci-layout", "index.json"} <= set(opened.getnames())


def test_a_definition_with_a_directory_of_the_client(running: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "src", {"a.txt": "mine", "b/c.txt": "too"})
    copied = scratch().file(mkdir("/in").copy(local("src"), "/", "/in", contents=True)).marshal()
    ctl(
        running,
        *("build", "--progress=plain", "--local", f"src={tmp_path}/src", "-o", f"type=local,dest={tmp_path}/out"),
        stdin=copied.to_bytes(),
    )
    assert (tmp_path / "out/in/a.txt").read_text() == "mine"
    assert (tmp_path / "out/in/b/c.txt").read_text() == "too"


def test_a_dockerfile(running: Daemon, tmp_path: Path) -> None:
    """The client is the frontend's client: it solves through the gateway and returns the result."""
    write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public "})
    (tmp_path / "word").write_text("secret")
    words = ["build", "--progress=plain", "--frontend=dockerfile.v0", "--secret", f"id=word,src={tmp_path}/word"]
    words += ["--local", f"context={tmp_path}/context", "--local", f"dockerfile={tmp_path}/context"]
    words += ["-o", f"type=tar,dest={tmp_path}/tree.tar", "--metadata-file", f"{tmp_path}/metadata.json"]
    assert "3/3] RUN --mount=type=secret" in ctl(running, *words)
    with tarfile.open(tmp_path / "tree.tar") as opened:
        both = opened.extractfile("srv/both")
        assert both is not None
        assert both.read() == b"public secret"
    assert "CACHED" in ctl(running, *words)


def test_a_failed_step_is_shown_with_its_line(running: Daemon, tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM base\nRUN exit 3\n"})
    words = ["build", "--progress=plain", "--frontend=dockerfile.v0"]
    words += ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    told = ctl(running, *words, status=1)
    assert ">>> RUN exit 3" in told
    assert "exit code: 3" in told


def test_history(running: Daemon, tmp_path: Path) -> None:
    ctl(running, "build", "--ref-file", tmp_path / "ref", stdin=files("history").to_bytes())
    ref = (tmp_path / "ref").read_text().strip()
    assert ref in ctl(running, "debug", "histories")
    assert "write history" in ctl(running, "debug", "logs", ref)
    records = [json.loads(line) for line in ctl(running, "debug", "histories", "--format", "{{json .}}").splitlines()]
    logs = next(record["record"]["logs"]["digest"] for record in records if record["record"]["Ref"] == ref)
    assert "write history" in ctl(running, "debug", "get", logs)
    ctl(running, "debug", "ctl", "--pin", ref)
    ctl(running, "debug", "ctl", "--delete", ref)
    assert ref not in ctl(running, "debug", "histories")


def test_usage_and_prune(running: Daemon) -> None:
    ctl(running, "build", stdin=files("usage").to_bytes())
    assert "write usage" in ctl(running, "du", "--verbose")
    ctl(running, "prune-histories")
    assert "Total:" in ctl(running, "prune", "--all")
    assert "write usage" not in ctl(running, "du", "--verbose")


def test_dial_stdio(running: Daemon) -> None:
    """The bytes of a connection, as they are: ours begins with settings, and ends when the client's does."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 6.5: a frame of that type, without any
    done = raw(running.address, "dial-stdio", stdin=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    assert (done.returncode, done.stdout[3]) == (0, settings[3])


def log_in(host: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As user with the password `secret`."""
    login = {"auths": {host: {"auth": base64.b64encode(b"user:secret").decode()}}}
    write(directory, {"docker/config.json": json.dumps(login)})
    monkeypatch.setenv("DOCKER_CONFIG", str(directory / "docker"))


async def test_a_token_of_its_own(running: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """buildctl fetches the token for a base itself: the daemon's own requests to the token service are none."""
    context, image = write(tmp_path / "context", {"a": "a"}), Image(layers=())
    agents: list[str] = []

    def watch(request: Request) -> None:
        if request.path == "/token":
            agents.append(request.headers.get("user-agent", ""))

    async with fake_registry(bearer="user:secret") as fake:
        fake.rules.append(watch)
        fake.put("app", "1", image)
        write(context, {"Dockerfile": f"FROM {fake.host}/app:1\nCOPY a /\n"})
        log_in(fake.host, tmp_path, monkeypatch)
        words = ("build", "--frontend", "dockerfile.v0", "--local", f"context={context}", "--local")
        command = partial(ctl, running, *words, f"dockerfile={context}", "--output", f"type=local,dest={tmp_path}/out")
        await trio.to_thread.run_sync(command)
    assert (tmp_path / "out/a").read_text() == "a"
    assert agents
    assert not any("pybuild" in agent for agent in agents)


async def test_a_token_service_of_an_authority_of_ones_own(
    running: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--registry-auth-tlscontext: buildctl asks it, and knows whom to trust."""
    certificate(tmp_path, "ca")
    server, key = certificate(tmp_path, "server", signer=str(tmp_path / "ca"))
    identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    identity.load_cert_chain(server, key)
    context = tmp_path / "context"
    async with fake_registry(bearer="user:secret") as fake, trio.open_nursery() as nursery:
        listen = partial(trio.serve_ssl_over_tcp, fake.server.connection, 0, identity, host="127.0.0.1")
        (listener,) = await nursery.start(listen)
        port = listener.transport_listener.socket.getsockname()[1]
        fake.realm = f"https://127.0.0.1:{port}/token"
        fake.put("app", "1", Image(layers=()))
        log_in(fake.host, tmp_path, monkeypatch)
        write(context, {"a": "a", "Dockerfile": f"FROM {fake.host}/app:1\nCOPY a /\n"})
        words = ("build", "--frontend=dockerfile.v0", "--local", f"context={context}", "--local")
        command = partial(ctl, running, *words, f"dockerfile={context}")
        told = await trio.to_thread.run_sync(partial(command, status=1))
        assert "certificate" in told
        trusted = ("--registry-auth-tlscontext", f"host={fake.host},insecure=false,ca={tmp_path}/ca.pem")
        await trio.to_thread.run_sync(partial(command, *trusted))
        nursery.cancel_scope.cancel()
    assert fake.tokens_given
