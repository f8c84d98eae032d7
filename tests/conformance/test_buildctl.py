"""buildctl before pybuildd: every output, and what builds are given, each looked at by somebody else."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llb.state import mkdir, scratch
from tests.builds import FIXTURES, Store, write
from tests.conformance.buildctl import ctl, raw
from tests.fakes.daemon import Daemon, daemon
from tests.fakes.image_tools import extracted, files_in, gnu_tar, inspect, run, skopeo, unpack
from tests.fakes.ssh_agent import installed, ssh_agent
from tests.integration.test_registry_docker import certificate

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
RUN mkdir /srv && echo "hello $WHO" > /srv/hello
FROM scratch
COPY --from=made /srv /srv
COPY a.txt /srv/
"""
TREE = {"srv/hello": "hello world\n", "srv/a.txt": "public"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a scenario works: a daemon, a context, a registry, and a directory for what comes out."""

    running: Daemon
    context: Path
    registry: str
    work: Path

    def build(self, *flags: str, status: int = 0, dockerfile: str = "") -> str:
        if dockerfile:
            (self.context / "Dockerfile").write_text(dockerfile)
        given = ("--frontend=dockerfile.v0", "--progress=plain")
        places = ("--local", f"context={self.context}", "--local", f"dockerfile={self.context}")
        return ctl(self.running, "build", *given, *places, *flags, status=status)

    def filled(self, flag: str) -> str:
        return flag.format(registry=self.registry, work=self.work)


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("buildctl")
    store = store_with_base.copy(place / "root")
    with daemon(store.root, place) as started:
        yield started


@pytest.fixture
def place(running: Daemon, registry: str, tmp_path: Path) -> Place:
    context = write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public"})
    return Place(running=running, context=context, registry=registry, work=tmp_path)


# --- what comes out -------------------------------------------------------------------------------------------


def is_a_directory(place: Place) -> None:
    assert files_in(place.work / "out") == TREE


def is_a_tar(place: Place) -> None:
    assert set(TREE) <= set(gnu_tar(place.work / "out.tar"))


def is_an_oci_archive(place: Place) -> None:
    assert files_in(unpack(extracted(place.work / "out.tar"), place.work / "unpacked", tag="1")) == TREE
    assert inspect(f"oci-archive:{place.work}/out.tar")["Architecture"] == "amd64"


def is_a_layout(place: Place) -> None:
    assert files_in(unpack(place.work / "out", place.work / "unpacked", tag="1")) == TREE


def is_a_docker_archive(place: Place) -> None:
    layout = place.work / "layout"
    skopeo("copy", f"docker-archive:{place.work}/out.tar:docker.io/library/app:1", f"oci:{layout}:x")
    assert files_in(unpack(layout, place.work / "unpacked")) == TREE


def is_in_the_registry(place: Place) -> None:
    layout = place.work / "layout"
    skopeo("copy", "--src-tls-verify=false", f"docker://{place.registry}/app:1", f"oci:{layout}:x")
    assert files_in(unpack(layout, place.work / "unpacked")) == TREE


def is_told_in_files(place: Place) -> None:
    told = json.loads((place.work / "metadata").read_text())
    index = json.loads(run("tar", "--extract", "--to-stdout", "--file", place.work / "out.tar", "index.json"))
    assert told["containerimage.digest"] == index["manifests"][0]["digest"]
    lines = (place.work / "trace").read_text().splitlines()
    names = {vertex["name"] for line in lines for vertex in json.loads(line).get("vertexes") or ()}
    assert "[stage-1 2/2] COPY a.txt /srv/" in names


SCENARIOS: dict[str, tuple[str, Callable[[Place], None]]] = {
    "local": ("--output type=local,dest={work}/out", is_a_directory),
    "tar": ("--output type=tar,dest={work}/out.tar", is_a_tar),
    "oci": ("--output type=oci,name=app:1,dest={work}/out.tar", is_an_oci_archive),
    "oci, as a directory": ("--output type=oci,name=app:1,tar=false,dest={work}/out", is_a_layout),
    "docker": ("--output type=docker,name=app:1,dest={work}/out.tar", is_a_docker_archive),
    "image": ("--output type=image,name={registry}/app:1,push=true", is_in_the_registry),
    "two at once": ("--output type=local,dest={work}/out --output type=tar,dest={work}/out.tar", is_a_directory),
    "files beside it": (
        "--output type=oci,dest={work}/out.tar --metadata-file {work}/metadata --trace {work}/trace",
        is_told_in_files,
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_outputs(name: str, place: Place) -> None:
    flags, right = SCENARIOS[name]
    place.build(*map(place.filled, flags.split()))
    right(place)


# --- what a build is given ------------------------------------------------------------------------------------


def test_options(place: Place) -> None:
    place.build("--opt", "build-arg:WHO=me", "--opt", "target=made", "--output", f"type=local,dest={place.work}/out")
    assert (place.work / "out/srv/hello").read_text() == "hello me\n"
    assert 'exporter "other" could not be found' in place.build("--output", "type=other", status=1)
    assert "dockerfile parse error" in place.build(dockerfile="FROM base\nRUNN\n", status=1)


def test_an_ssh_agent(place: Place, tmp_path: Path) -> None:
    write(place.context / "tools", installed("ssh-add"))
    dockerfile = "FROM base\nCOPY --chmod=755 tools /\nRUN --mount=type=ssh ssh-add -l\n"
    with ssh_agent(tmp_path) as agent:
        assert agent.fingerprint in place.build("--ssh", f"default={agent.socket}", dockerfile=dockerfile)


def test_a_layout_of_the_client(place: Place) -> None:
    """A base that only the client has, by its digest."""
    place.build("--output", f"type=oci,name=app:1,tar=false,dest={place.work}/layout")
    index = json.loads((place.work / "layout/index.json").read_text())
    named = f"oci-layout://mine@{index['manifests'][0]['digest']}"
    flags = ("--oci-layout", f"mine={place.work}/layout", "--opt", f"context:upon={named}")
    place.build(*flags, "--output", f"type=local,dest={place.work}/out", dockerfile="FROM upon\nCOPY a.txt /more\n")
    assert files_in(place.work / "out") == TREE | {"more": "public"}


def test_an_inline_cache(place: Place, store_with_base: Store, tmp_path: Path) -> None:
    """Another daemon, which has nothing but the base, takes the steps from the image."""
    name = f"{place.registry}/cached:1"
    place.build("--export-cache", "type=inline", "--output", f"type=image,name={name},push=true")
    with daemon(store_with_base.copy(tmp_path / "elsewhere").root, tmp_path / "other") as other:
        elsewhere = Place(running=other, context=place.context, registry=place.registry, work=place.work)
        told = elsewhere.build(
            "--import-cache", f"type=registry,ref={name}", "--output", f"type=local,dest={place.work}/out"
        )
    assert f"importing cache manifest from {name}" in told
    assert told.count("CACHED") >= 2
    assert files_in(place.work / "out") == TREE


# --- how the daemon is reached --------------------------------------------------------------------------------


def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    certificate(tmp_path, "ca")
    for name in ("server", "client"):
        certificate(tmp_path, name, signer=str(tmp_path / "ca"))
    certificate(tmp_path, "stranger")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    files = scratch().file(mkdir("/srv")).marshal().to_bytes()
    own = (
        "--tlscert",
        tmp_path / "server.pem",
        "--tlskey",
        tmp_path / "server.key",
        "--tlscacert",
        tmp_path / "ca.pem",
    )

    def as_(name: str) -> tuple[object, ...]:
        mine = ("--tlscert", tmp_path / f"{name}.pem", "--tlskey", tmp_path / f"{name}.key")
        return ("--tlscacert", tmp_path / "ca.pem", *mine)

    with daemon(tmp_path / "root", tmp_path, "--addr", address, *own):
        assert b"linux/amd64" in raw(address, *as_("client"), "debug", "workers").stdout
        built = raw(address, *as_("client"), "build", "--output", f"type=local,dest={tmp_path}/out", stdin=files)
        assert built.returncode == 0, built.stderr
        assert (tmp_path / "out/srv").is_dir()
        for word in ("ca", "cert", "key"):
            name = "ca.pem" if word == "ca" else f"client.{'pem' if word == 'cert' else 'key'}"
            write(tmp_path / "tls", {f"{word}.pem": (tmp_path / name).read_bytes()})
        named = ("--tlsdir", tmp_path / "tls", "--tlsservername", "127.0.0.1")
        assert raw(address, *named, "debug", "workers").returncode == 0
        assert raw(address, *named[:2], "--tlsservername", "other.example", "debug", "workers").returncode == 1
        refused = raw(address, *as_("stranger"), "debug", "workers")
        assert refused.returncode == 1, refused.stdout
