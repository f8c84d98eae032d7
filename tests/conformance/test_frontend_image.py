"""BuildKit's own Dockerfile frontend, as an image that a syntax directive names, before us: what it makes is what our
frontend makes of the same files, by the command, by buildctl and by docker-buildx. And ours before BuildKit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from tests.bench.engines import Daemon as PeerDaemon
from tests.builds import FIXTURES, Store, write
from tests.conformance import frontend_image, peer
from tests.conformance.buildctl import ctl
from tests.conformance.buildx import Buildx
from tests.fakes import interpreter_image
from tests.fakes.daemon import Daemon, daemon

pytest_plugins = [FIXTURES]

_RACE = "runc run failed: container process is already dead"
_FILES = Path(__file__).parent / "frontends"
CONTEXT: Mapping[str, str] = {
    ".dockerignore": "*.log\n!kept.log\nDockerfile\n",
    "app/main.sh": "#!/bin/sh\necho main\n",
    "app/lib/one.sh": "one() { echo 1; }\n",
    "app/lib/two.sh": "two() { echo 2; }\n",
    "config/settings.ini": "[main]\nlevel = 3\n",
    "kept.log": "kept\n",
    "noise.log": "noise\n",
    "lock": "a 1\nb 2\n",
    "docs/readme.md": "# read me\n",
}
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in _FILES.iterdir())
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "arguments": ("VERSION=1.2.3", "EXTRA=yes"),
    "reproducible": ("SOURCE_DATE_EPOCH=1700000000",),
}
TARGETS = {"targets": "release"}


class Client(Protocol):
    """Builds a context to an OCI archive; the rest is told in the client's own words."""

    def build(self, context: Path, arguments: Sequence[str], target: str, archive: Path, metadata: Path) -> None: ...


class Command:
    def __init__(self, store: Store) -> None:
        self._store = store

    def build(self, context: Path, arguments: Sequence[str], target: str, archive: Path, metadata: Path) -> None:
        flags = [f"--build-arg={each}" for each in arguments] + (["--target", target] if target else [])
        out = ("-o", f"type=oci,dest={archive}", "--metadata-file", metadata)
        self._store.command("build", context, *out, *flags)


class Buildctl:
    def __init__(self, running: Daemon) -> None:
        self._running = running

    def build(self, context: Path, arguments: Sequence[str], target: str, archive: Path, metadata: Path) -> None:
        flags = [f"--opt=build-arg:{each}" for each in arguments] + ([f"--opt=target={target}"] if target else [])
        out = ("--output", f"type=oci,dest={archive}", "--metadata-file", metadata)
        ctl(self._running, "build", "--frontend=dockerfile.v0", *directories(context), *out, *flags)


class Buildxed:
    def __init__(self, buildx: Buildx) -> None:
        self._buildx = buildx

    def build(self, context: Path, arguments: Sequence[str], target: str, archive: Path, metadata: Path) -> None:
        flags = [f"--build-arg={each}" for each in arguments] + (["--target", target] if target else [])
        self._buildx.build(context, "-o", f"type=oci,dest={archive}", "--metadata-file", metadata, *flags)


def directories(context: Path) -> tuple[str, ...]:
    return "--local", f"context={context}", "--local", f"dockerfile={context}"


class World(NamedTuple):
    """`syntax` names the frontend's image."""

    clients: Mapping[str, Client]
    buildx: Buildx
    running: Daemon
    syntax: str


@pytest.fixture(scope="module")
def world(store_with_base: Store, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("frontend")
    store = store_with_base.copy(place / "own")
    syntax = frontend_image.push(store, registry, place / "image")
    with daemon(store_with_base.copy(place / "root").root, place) as running:
        buildx = Buildx(place / "home", running.address)
        clients = {"pybuild": Command(store), "buildctl": Buildctl(running), "buildx": Buildxed(buildx)}
        yield World(clients, buildx, running, syntax)


def test_there_are_ten() -> None:
    assert len(NAMES) >= 10


@pytest.mark.parametrize("client", ["pybuild", "buildctl", "buildx"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_image_by_either_frontend(world: World, tmp_path: Path, name: str, client: str) -> None:
    assert_same(world, world.syntax, tmp_path, name, client)


def assert_same(world: World, foreign: str, work: Path, name: str, client: str) -> None:
    """To the last byte, times and all: the build by the foreign frontend finds every step of the one by ours."""
    text = (_FILES / f"{name}.Dockerfile").read_text()
    digests = []
    for syntax in ("docker/dockerfile:1", foreign):
        context = write(work / "context", {**CONTEXT, "Dockerfile": f"# syntax={syntax}\n{text}"})
        metadata = work / "metadata"
        options, target = OPTIONS.get(name, ()), TARGETS.get(name, "")
        world.clients[client].build(context, options, target, work / "image.tar", metadata)
        digests.append(json.loads(metadata.read_text())["containerimage.digest"])
    assert digests[0] == digests[1]


def test_a_mistake_is_shown_where_it_is(world: World, tmp_path: Path) -> None:
    context = write(tmp_path / "wrong", {"Dockerfile": f"# syntax={world.syntax}\nFROM base\nRUM x\n"})
    for text in (
        world.buildx.build(context, status=1),
        ctl(world.running, "build", "--frontend=dockerfile.v0", *directories(context), status=1),
    ):
        assert "unknown instruction: RUM (did you mean RUN?)" in text
        assert ">>> RUM x" in text
        assert "goroutine" not in text


@pytest.mark.parametrize("by", ["directive", "argument"])
def test_what_is_asked_instead_of_a_build(world: World, tmp_path: Path, by: str) -> None:
    """A build argument comes from buildx as a build by gateway.v0."""
    syntax = world.syntax if by == "directive" else "docker/dockerfile:1"
    flags = () if by == "directive" else (f"--build-arg=BUILDKIT_SYNTAX={world.syntax}",)
    stages = "FROM base AS one\nARG WHO=world\nRUN echo $WHO\nFROM scratch AS two\nCOPY --from=one / /\n"
    context = write(tmp_path, {"Dockerfile": f"# syntax={syntax}\n{stages}"})

    def asked(call: str) -> Any:
        done = world.buildx.run("build", f"--call={call},format=json", *flags, context)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    assert [target["name"] for target in asked("targets")["targets"]] == ["one", "two"]
    assert asked("outline")["name"] == "two"
    assert not asked("lint").get("warnings")


# --- the other way round: our frontend before BuildKit's daemon ------------------------------------------------


class Peer(NamedTuple):
    """BuildKit's daemon, and the name of our frontend's image."""

    daemon: PeerDaemon
    syntax: str


@pytest.fixture(scope="module")
def ours(store_with_base: Store, registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our frontend's image, in the registry beside `base`: the name of it."""
    place = tmp_path_factory.mktemp("ours")
    store = store_with_base.copy(place / "own")
    syntax, base = f"{registry}/frontends/ours:1", f"{registry}/library/base"
    interpreter_image.frontend_image(store, place / "image", syntax)
    store.command("image", "tag", "base", base)
    for name in (syntax, base):
        store.command("push", name)
    return syntax


@pytest.mark.parametrize("client", ["buildctl", "buildx"])
def test_our_frontend_in_an_image_before_us(world: World, ours: str, tmp_path: Path, client: str) -> None:
    assert_same(world, ours, tmp_path, "stages", client)


@pytest.fixture(scope="module")
def there(ours: str, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    place = tmp_path_factory.mktemp("there")
    (place / "peer").mkdir()
    (place / "buildkitd.toml").write_text(
        f'[registry."docker.io"]\n  mirrors = ["{registry}"]\n[registry."{registry}"]\n  http = true\n'
    )
    with peer.daemon(place / "peer", "--config", place / "buildkitd.toml") as running:
        yield Peer(running, ours)


def built_there(there: Peer, context: Path, *flags: str, status: int = 0) -> str:
    argv = [*there.daemon.ctl(), "build", "--frontend=dockerfile.v0", "--progress=plain", *directories(context), *flags]
    text = _RACE
    while _RACE in text:  # steps that end at once, on a busy machine: not what is tested here
        done = subprocess.run(argv, capture_output=True, check=False, timeout=100)
        text = (done.stdout + done.stderr).decode()
    assert done.returncode == status, text
    return text


@pytest.mark.parametrize("name", NAMES)
def test_our_frontend_in_an_image_before_buildkit(there: Peer, tmp_path: Path, name: str) -> None:
    """The same image as by BuildKit's own frontend, in the same daemon."""
    text = (_FILES / f"{name}.Dockerfile").read_text()
    given = [f"--opt=build-arg:{each}" for each in OPTIONS.get(name, ())]
    given += [f"--opt=target={TARGETS[name]}"] if name in TARGETS else []
    digests = []
    for directive in ("", f"# syntax={there.syntax}\n"):
        context = write(tmp_path / "context", {**CONTEXT, "Dockerfile": f"{directive}{text}"})
        metadata = tmp_path / "metadata"
        out = ("--output", f"type=oci,dest={tmp_path}/image.tar", "--metadata-file", str(metadata))
        built_there(there, context, *out, *given)
        digests.append(json.loads(metadata.read_text())["containerimage.digest"])
    assert digests[0] == digests[1]


def test_a_mistake_that_our_frontend_finds_before_buildkit(there: Peer, tmp_path: Path) -> None:
    context = write(tmp_path, {"Dockerfile": f"# syntax={there.syntax}\nFROM base\nRUM x\n"})
    text = built_there(there, context, status=1)
    assert "dockerfile parse error on line 3: unknown instruction: RUM (did you mean RUN?)" in text
    assert ">>> RUM x" in text
