"""docker-buildx before pybuildd: builds, with every output and what is around them, each looked at by somebody else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.builds import FIXTURES, Store, write
from tests.conformance.buildx import PATIENCE, Buildx
from tests.fakes import git_server, http_server
from tests.fakes.daemon import Daemon, daemon
from tests.fakes.docker_engine import docker_engine
from tests.fakes.image_tools import extracted, files_in, gnu_tar, inspect, layout_of, run, skopeo, unpack
from tests.fakes.ssh_agent import installed, ssh_agent

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM --platform=$BUILDPLATFORM base AS made
ARG TARGETARCH WHO=world
RUN echo "hello $WHO" && mkdir /srv && echo $TARGETARCH > /srv/arch
FROM scratch
COPY --from=made /srv/arch /etc/arch
COPY a.txt /srv/
ENV KEY=value
LABEL of=file
"""
TREE = {"etc/arch": "amd64\n", "srv/a.txt": "public"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a scenario works: the client, its context, a registry, and a directory for what comes out."""

    buildx: Buildx
    context: Path
    registry: str
    work: Path

    def filled(self, flag: str) -> str:
        return flag.format(registry=self.registry, work=self.work)


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("buildx")
    store = store_with_base.copy(place / "root")
    with daemon(store.root, place, "--allow-insecure-entitlement", "network.host") as started:
        yield started


@pytest.fixture
def buildx(running: Daemon, tmp_path: Path) -> Buildx:
    return Buildx(tmp_path / "home", running.address)


@pytest.fixture
def place(buildx: Buildx, registry: str, tmp_path: Path) -> Place:
    context = write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public"})
    return Place(buildx=buildx, context=context, registry=registry, work=tmp_path)


# --- what comes out -------------------------------------------------------------------------------------------


def is_a_directory(place: Place) -> None:
    assert files_in(place.work / "out") == TREE


def is_a_tar(place: Place) -> None:
    names = gnu_tar(place.work / "out.tar")
    assert set(TREE) <= set(names)
    content = run("tar", "--extract", "--to-stdout", "--file", place.work / "out.tar", "srv/a.txt")
    assert content == b"public"


def is_an_oci_archive(place: Place) -> None:
    archive = f"oci-archive:{place.work}/out.tar"
    assert inspect(archive, "--config")["config"]["Labels"] == {"of": "file", "mine": "yes"}
    tree = unpack(extracted(place.work / "out.tar"), place.work / "unpacked", tag="1")
    assert files_in(tree) == TREE


def is_a_docker_archive(place: Place) -> None:
    archive = f"docker-archive:{place.work}/out.tar:docker.io/library/app:1"
    assert inspect(archive, "--config")["config"]["Env"][-1] == "KEY=value"
    tree = unpack(layout_of(archive, place.work / "layout"), place.work / "unpacked")
    assert files_in(tree) == TREE


def is_in_the_registry(place: Place) -> None:
    image = f"docker://{place.registry}/app:1"
    assert inspect(image, "--tls-verify=false", "--config")["config"]["Env"][-1] == "KEY=value"
    layout = place.work / "layout"
    skopeo("copy", "--src-tls-verify=false", image, f"oci:{layout}:x")
    assert files_in(unpack(layout, place.work / "unpacked")) == TREE


def is_annotated(place: Place) -> None:
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{place.registry}/noted:1"))
    assert raw["annotations"] == {"org.example.a": "b"}


def is_for_two_platforms(place: Place) -> None:
    image = f"docker://{place.registry}/both:1"
    index = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", image))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    for arch in ("amd64", "arm64"):
        chosen = ("--override-arch", arch, "--tls-verify=false")
        assert json.loads(skopeo("inspect", "--config", *chosen, image))["architecture"] == arch
    layout = place.work / "arm64"
    skopeo("copy", "--override-arch=arm64", "--src-tls-verify=false", image, f"oci:{layout}:x")
    assert files_in(unpack(layout, place.work / "unpacked")) == TREE | {"etc/arch": "arm64\n"}


def is_two_directories(place: Place) -> None:
    found = files_in(place.work / "out")
    assert found["linux_amd64/etc/arch"] == "amd64\n"
    assert found["linux_arm64/etc/arch"] == "arm64\n"


def is_told_in_files(place: Place) -> None:
    told = json.loads((place.work / "metadata").read_text())
    raw = skopeo("inspect", "--raw", f"oci-archive:{place.work}/out.tar")
    assert told["containerimage.config.digest"] == (place.work / "iid").read_text()
    assert told["containerimage.config.digest"] == json.loads(raw)["config"]["digest"]
    assert told["image.name"] == "docker.io/library/app:1"


SCENARIOS: dict[str, tuple[str, Callable[[Place], None]]] = {
    "local": ("-o type=local,dest={work}/out", is_a_directory),
    "local, by its name alone": ("-o {work}/out", is_a_directory),
    "tar": ("-o type=tar,dest={work}/out.tar", is_a_tar),
    "oci": ("-o type=oci,dest={work}/out.tar -t app:1 --label mine=yes", is_an_oci_archive),
    "docker": ("-o type=docker,dest={work}/out.tar -t app:1", is_a_docker_archive),
    "push": ("--push -t {registry}/app:1", is_in_the_registry),
    "annotation": ("--push -t {registry}/noted:1 --annotation org.example.a=b", is_annotated),
    "two platforms": ("--push -t {registry}/both:1 --platform linux/amd64,linux/arm64", is_for_two_platforms),
    "two platforms, local": ("-o {work}/out --platform linux/amd64,linux/arm64", is_two_directories),
    "files beside it": (
        "-o type=oci,dest={work}/out.tar -t app:1 --metadata-file {work}/metadata --iidfile {work}/iid",
        is_told_in_files,
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_outputs(name: str, place: Place) -> None:
    flags, right = SCENARIOS[name]
    place.buildx.build(place.context, *map(place.filled, flags.split()))
    right(place)


def test_standard_output(place: Place) -> None:
    done = place.buildx.run("build", "-o", "type=tar,dest=-", place.context)
    assert done.returncode == 0, done.stderr.decode()
    (place.work / "out.tar").write_bytes(done.stdout)
    is_a_tar(place)


def test_what_buildx_asks_for_by_itself(place: Place) -> None:
    """Provenance, in an image beside the image."""
    name, flags = f"{place.registry}/default:1", ("--push", "--metadata-file", f"{place.work}/metadata")
    place.buildx.build(place.context, "-t", name, *flags, BUILDX_NO_DEFAULT_ATTESTATIONS="0")
    index = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    image, beside = index["manifests"]
    assert beside["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
    assert beside["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    statement = json.loads(place.buildx("imagetools", "inspect", "--format={{json .Provenance}}", name))["SLSA"]
    assert statement["invocation"]["parameters"]["frontend"] == "dockerfile.v0"


def test_a_pull_is_shown_at_its_step(place: Place, store_with_base: Store, tmp_path: Path) -> None:
    place.buildx.build(place.context, "-t", f"{place.registry}/pulled:1", "--push")
    dockerfile = place.filled(
        'FROM {registry}/pulled:1\nCOPY --from=base /bin/busybox /bin/\nRUN ["busybox"]\n'
    ).encode()
    with daemon(store_with_base.copy(tmp_path / "elsewhere").root, tmp_path / "other") as other:
        elsewhere = Buildx(tmp_path / "other-home", other.address)
        told = elsewhere.build(place.context, "-f", "-", stdin=dockerfile)
    (step,) = set(re.findall(r"(#\d+) \[.*FROM .*/pulled:1@", told))
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{place.registry}/pulled:1")
    for layer in json.loads(raw)["layers"]:
        assert f"{step} {layer['digest']} " in told
        assert f"{step} extracting {layer['digest']} " in told


def test_quietly(place: Place) -> None:
    done = place.buildx.run("build", "-q", "-t", f"{place.registry}/quiet:1", "--push", place.context)
    assert done.returncode == 0, done.stderr.decode()
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{place.registry}/quiet:1")
    assert done.stdout.decode().strip() == json.loads(raw)["config"]["digest"]


def test_into_a_docker_engine(place: Place, tmp_path: Path) -> None:
    with docker_engine(tmp_path) as docker:
        told = place.buildx.build(place.context, "-t", "loaded:1", "--load", DOCKER_HOST=docker.host)
        assert "importing to docker" in told
        docker("create", "--name", "made", "loaded:1", "true")
        docker("export", "--output", tmp_path / "loaded.tar", "made")
    content = run("tar", "--extract", "--to-stdout", "--file", tmp_path / "loaded.tar", "srv/a.txt")
    assert content == b"public"


# --- caches ---------------------------------------------------------------------------------------------------


def test_an_inline_cache(place: Place, store_with_base: Store, tmp_path: Path) -> None:
    """Another daemon, which has nothing but the base, takes the steps from the image."""
    name = f"{place.registry}/cached:1"
    place.buildx.build(place.context, "--cache-to", "type=inline", "-t", name, "--push")
    with daemon(store_with_base.copy(tmp_path / "elsewhere").root, tmp_path / "other") as other:
        elsewhere = Buildx(tmp_path / "other-home", other.address)
        flags = ("--cache-from", f"type=registry,ref={name}")
        told = elsewhere.build(place.context, *flags, "-o", place.work / "out")
    assert f"importing cache manifest from {name}" in told
    assert told.count("CACHED") >= 2
    is_a_directory(place)


def test_nothing_from_the_cache(place: Place) -> None:
    place.buildx.build(place.context)
    assert place.buildx.build(place.context).count("CACHED") >= 3
    assert "hello world" in place.buildx.build(place.context, "--no-cache-filter", "made")
    assert "hello world" in place.buildx.build(place.context, "--no-cache")


# --- what a build is given ------------------------------------------------------------------------------------


def test_secrets(place: Place) -> None:
    (place.work / "word").write_text("from a file")
    dockerfile = (
        b"FROM base\nRUN --mount=type=secret,id=file --mount=type=secret,id=env,env=WORD "
        b"cat /run/secrets/file; echo; echo $WORD\n"
    )
    flags = ("--secret", f"id=file,src={place.work}/word", "--secret", "id=env,env=GIVEN", "-f", "-")
    told = place.buildx.build(place.context, *flags, stdin=dockerfile, GIVEN="from the environment")
    assert "from a file" in told
    assert "from the environment" in told
    needed = b"FROM base\nRUN --mount=type=secret,id=gone,required true\n"
    assert "secret gone: not found" in place.buildx.build(place.context, "-f", "-", stdin=needed, status=1)


def test_an_ssh_agent(place: Place, tmp_path: Path) -> None:
    write(place.context / "tools", installed("ssh-add"))
    dockerfile = b"FROM base\nCOPY --chmod=755 tools /\nRUN --mount=type=ssh ssh-add -l\n"
    with ssh_agent(tmp_path) as agent:
        told = place.buildx.build(place.context, "--ssh", f"default={agent.socket}", "-f", "-", stdin=dockerfile)
    assert agent.fingerprint in told
    needed = b"FROM base\nRUN --mount=type=ssh,required true\n"
    assert "forwarded from the client" in place.buildx.build(place.context, "-f", "-", stdin=needed, status=1)


def test_surroundings_of_a_step(place: Place) -> None:
    dockerfile = b"FROM base\nRUN ulimit -n; grep shm /proc/mounts; cat /etc/hosts; echo as $WHO\n"
    dockerfile = dockerfile.replace(b"RUN", b"ARG WHO\nRUN")
    flags = ("--ulimit", "nofile=100:200", "--shm-size", "8m", "--add-host", "db:10.1.2.3", "--build-arg", "WHO=me")
    told = place.buildx.build(place.context, *flags, "-f", "-", stdin=dockerfile)
    for expected in (" 100\n", "size=8192k", "10.1.2.3\tdb", "as me"):
        assert expected in told


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (("--allow", "network.host"), 0, "DONE"),
        ((), 1, "network.host is not allowed"),
        (("--allow", "security.insecure"), 1, "security.insecure is not allowed"),
    ],
)
def test_entitlements(flags: tuple[str, ...], status: int, said: str, place: Place) -> None:
    dockerfile = b"FROM base\nRUN --network=host true\n"
    assert said in place.buildx.build(place.context, *flags, "-f", "-", stdin=dockerfile, status=status)


# --- contexts -------------------------------------------------------------------------------------------------


def test_a_dockerfile_alone(buildx: Buildx) -> None:
    told = buildx("build", "--progress=plain", "-", stdin=b"FROM base\nRUN echo alone\n")
    assert "alone" in told


def test_a_tar_on_standard_input(place: Place) -> None:
    archive = run("tar", "--create", "--directory", place.context, ".")
    place.buildx("build", "-o", place.work / "out", "-", stdin=archive)
    is_a_directory(place)


async def test_a_git_repository(place: Place, tmp_path: Path) -> None:
    repository = git_server.make(tmp_path / "git" / "app.git")
    repository.commit({"Dockerfile": DOCKERFILE.encode(), "a.txt": b"public"})
    async with git_server.git_over_http(tmp_path / "git") as server:
        words = ("build", "-o", place.work / "out", f"{server.url}/app.git#main")
        await trio.to_thread.run_sync(place.buildx, *words)
    is_a_directory(place)


async def test_an_archive_on_a_web_server(place: Place) -> None:
    archive = run("tar", "--create", "--gzip", "--directory", place.context, ".")
    async with http_server.serve(lambda request: http_server.Reply(body=archive)) as server:
        await trio.to_thread.run_sync(place.buildx, "build", "-o", place.work / "out", f"{server.url}/context.tgz")
    is_a_directory(place)


def test_named_contexts(place: Place) -> None:
    write(place.work / "extra", {"word": "from a directory"})
    place.buildx.build(place.context, "-t", f"{place.registry}/named:1", "--push")
    dockerfile = b"FROM other\nCOPY --from=extra word /srv/word\n"
    flags: list[object] = ["--build-context", f"extra={place.work}/extra"]
    flags += ["--build-context", f"other=docker-image://{place.registry}/named:1", "-o", place.work / "out"]
    place.buildx.build(place.context, *flags, "-f", "-", stdin=dockerfile)
    assert files_in(place.work / "out") == TREE | {"srv/word": "from a directory"}


def test_a_layout_of_the_client(place: Place) -> None:
    layout = place.work / "layout"
    place.buildx.build(place.context, "-o", f"type=oci,tar=false,dest={layout}", "-t", "app:1")
    for name in ("", ":1"):
        flags = ("--build-context", f"mine=oci-layout://{layout}{name}", "-o", place.work / f"out{name}")
        place.buildx.build(place.context, *flags, "-f", "-", stdin=b"FROM mine\nCOPY a.txt /more\n")
        assert files_in(place.work / f"out{name}") == TREE | {"more": "public"}


# --- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("FROM base\nRUN echo before && exit 7\n", ("exit code: 7", "before", ">>> RUN echo before && exit 7")),
        ("FROM base\nCOPY nothing /\n", ('"/nothing": not found', ">>> COPY nothing /")),
        ("FROM base\nRUNN x\n", ("unknown instruction: RUNN", ">>> RUNN x")),
        ("FROM {registry}/nothing\n", ("manifest unknown", "not found", ">>> FROM")),
    ],
    ids=["a step", "a file", "a word", "an image"],
)
def test_the_line_of_a_failure_is_shown(dockerfile: str, said: tuple[str, ...], place: Place) -> None:
    given = place.filled(dockerfile).encode()
    told = place.buildx.build(place.context, "-f", "-", stdin=given, status=1)
    for expected in said:
        assert expected in told


def test_a_build_without_a_dockerfile(place: Place) -> None:
    (place.context / "Dockerfile").unlink()
    told = place.buildx.build(place.context, status=1)
    assert "failed to read dockerfile: open Dockerfile: no such file or directory" in told


def test_an_interrupt_ends_the_step(place: Place) -> None:
    dockerfile = b"FROM base\nRUN echo it runs && sleep 1000.25\n"
    argv = place.buildx.argv("build", "--progress=plain", "-f", "-", str(place.context))
    client = subprocess.Popen(
        argv, env=place.buildx.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert client.stdin is not None
    assert client.stderr is not None
    with client, client.stdin, client.stderr:
        client.stdin.write(dockerfile)
        client.stdin.close()
        while b" it runs\n" not in (line := client.stderr.readline()):
            assert line, "the build has ended"
        client.send_signal(signal.SIGINT)
        said = client.stderr.read().decode()
        assert client.wait(PATIENCE) in (1, 130)  # an old one, a newer one
    assert "CANCELED" in said
    assert "context canceled" in said
    place.buildx.build(place.context)  # the daemon has not taken harm
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"1000.25" in command_line(pid)]


def command_line(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""
