"""Builds and stored images pushed to docker's registry and to ours, and what the registries saw of it."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import SourceError
from buildengine.platform import parse
from tests.builds import FIXTURES, Store, write
from tests.fakes.faulty_proxy import FAULTS, faulty_proxy
from tests.fakes.own_registry import OwnRegistry, own_registry
from tests.fakes.push_registry import MemoryContent, pusher, target
from tests.fakes.registry_server import Image, MemorySink, client, index
from tests.integration.test_registry_docker import HASH, DockerRegistry
from worker.oci import types
from worker.oci.types import Descriptor
from worker.registry.puller import RemoteImage

pytest_plugins = [FIXTURES]

BASE = Image(layers=[gzip.compress(os.urandom(200_000), 1), gzip.compress(b"small", mtime=0)])
BOTH = ("--platform", "linux/amd64,linux/arm64")
_SERVED = re.compile(
    r'msg="response completed.* http\.request\.method=(\S+) '
    r'.*http\.request\.uri="?([^" ]+).*http\.response\.status=(\d+)'
)


class Side(Protocol):
    """A registry. `seen` are its requests, `PUT 201 app/manifests/1`, since it was last asked."""

    host: str

    def seen(self) -> list[str]: ...


def line(method: str, target: str, status: int) -> str:
    path = re.sub(r"uploads/[^?/]+", "uploads/N", target.partition("?")[0]).removeprefix("/v2/")
    mount = re.search(r"[?&]from=([^&]+)", target)
    return f"{method} {status} {path}" + (f" from {mount[1].replace('%2F', '/')}" if mount else "")


class Docker:
    """Its log is written after the answer: a last request marks the end of those before."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self._running = DockerRegistry(directory, **more)
        self._log = directory / "log"
        self._read = 0
        self._marks = 0
        self.host = self._running.host
        self.stop = self._running.stop

    def seen(self) -> list[str]:
        self._marks += 1
        mark = f"/v2/mark{self._marks}/tags/list"
        while mark not in self._log.read_text():
            subprocess.run(["curl", "-s", f"http://{self.host}{mark}"], check=True, capture_output=True)
            time.sleep(0.005)
        found = [line(m[1], m[2], int(m[3])) for m in _SERVED.finditer(self._log.read_text())]
        fresh, self._read = found[self._read :], len(found)
        return [entry for entry in fresh if " mark" not in entry]


class Own:
    def __init__(self, running: OwnRegistry) -> None:
        self._running = running
        self._read = 0
        self.host = running.address

    def seen(self) -> list[str]:
        logged = self._running.log(after=self._read)
        self._read = max((entry.number for entry in logged), default=self._read)
        return [line(entry.method, entry.path, entry.status) for entry in logged]


@contextmanager
def serving(kind: str, directory: Path) -> Iterator[Side]:
    if kind == "own":
        with own_registry(directory) as running:
            yield Own(running)
        return
    docker = Docker(directory)
    try:
        yield docker
    finally:
        docker.stop()


@pytest.fixture(params=["docker", "own"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    with serving(request.param, tmp_path / "registry") as running:
        yield running


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY a /a\nCOPY b /b\n", "a": "1", "b": "2"})


async def push(image: Image, *names: str) -> None:
    async with pusher() as client:
        await client.push(target(image), MemoryContent.of(image), [reference.parse(name) for name in names])


async def pulled(name: str, *, platform: str = "linux/amd64") -> RemoteImage:
    """The image, with every blob fetched and its digest checked."""
    async with client() as registry:
        image = await registry.resolve(reference.parse(name), parse(platform))
        for descriptor, _ in image.layers:
            await registry.fetch_blob(descriptor, (image.origin,), MemorySink())
    return image


def inspect(name: str) -> bytes:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def transfers(seen: list[str]) -> list[str]:
    """The requests that moved the bytes of a blob."""
    return [entry for entry in seen if re.match(r"PUT .*/uploads/|PATCH |GET .*/blobs/sha256", entry)]


# --- builds -------------------------------------------------------------------------------------------------


async def test_a_build_under_two_tags(side: Side, store: Store, context: Path) -> None:
    built = await store.build(context, "-t", f"{side.host}/team/app:1", "-t", f"{side.host}/team/app:2", "--push")
    seen = side.seen()
    assert inspect(f"{side.host}/team/app:1") == inspect(f"{side.host}/team/app:2")
    await pulled(f"{side.host}/team/app:1")
    assert len(transfers(seen)) == 3  # two layers and the config
    assert [entry for entry in seen if entry.startswith("PUT 201 team/app/manifests")] == [
        "PUT 201 team/app/manifests/1",
        "PUT 201 team/app/manifests/2",
    ]
    last_blob = max(n for n, entry in enumerate(seen) if "/blobs/" in entry)
    assert last_blob < min(n for n, entry in enumerate(seen) if "/manifests/" in entry)
    assert built.step("pushing ").outcome == "done"
    assert built.order.index(built.step("exporting to image")) < built.order.index(built.step("pushing "))
    assert "team/app" not in store.command("image", "ls").stdout  # nobody asked for it


async def test_an_image_of_two_platforms(side: Side, store: Store, context: Path) -> None:
    await store.build(context, *BOTH, "-t", f"{side.host}/app:1", "-o", "type=registry,oci-mediatypes=true")
    index = json.loads(inspect(f"{side.host}/app:1"))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    for architecture in ("amd64", "arm64"):
        await pulled(f"{side.host}/app:1", platform=f"linux/{architecture}")
    puts = [entry for entry in side.seen() if entry.startswith("PUT 201 app/manifests")]
    assert len(puts) == 3
    assert puts[-1] == "PUT 201 app/manifests/1"


async def test_by_digest(side: Side, store: Store, context: Path, tmp_path: Path) -> None:
    output = f"type=image,name={side.host}/app,push=true,push-by-digest=true"
    told = tmp_path / "metadata"
    store.command("build", "-o", output, "--metadata-file", told, context)
    digest = json.loads(told.read_bytes())["containerimage.digest"]
    assert Digest.sha256(inspect(f"{side.host}/app@{digest}")) == digest
    assert [entry for entry in side.seen() if entry.startswith("PUT 201 app/m")] == [f"PUT 201 app/manifests/{digest}"]


@pytest.mark.parametrize("change", ["LABEL a=b", "COPY --link a /a"])
async def test_an_untouched_base_moves_no_layer(side: Side, empty_store: Store, context: Path, change: str) -> None:
    """It is neither downloaded nor uploaded: the registry takes its layers from the other repository."""
    await push(BASE, f"{side.host}/team/base:1")
    write(context, {"Dockerfile": f"FROM {side.host}/team/base:1\n{change}\n"})
    side.seen()
    await empty_store.build(context, "-t", f"{side.host}/team/app:1", "--push")
    seen = side.seen()
    layers = [Digest.sha256(layer) for layer in BASE.layers]
    assert not [entry for entry in seen if entry.startswith("GET") and any(layer in entry for layer in layers)]
    assert seen.count("POST 201 team/app/blobs/uploads/ from team/base") == len(layers)
    assert not any((empty_store.root / "blobs/sha256" / layer.hex).exists() for layer in layers)
    image = await pulled(f"{side.host}/team/app:1")
    assert [descriptor.digest for descriptor, _ in image.layers][: len(layers)] == layers


async def test_no_layer_is_sent_twice(side: Side, store: Store, context: Path) -> None:
    """Neither one that both platforms have, nor for a second repository, nor for another tag."""
    text = "FROM scratch\nCOPY a /\nARG TARGETARCH\nCOPY of-$TARGETARCH /own\nLABEL arch=$TARGETARCH\n"
    write(context, {"Dockerfile": text, "of-amd64": "for amd64", "of-arm64": "for arm64"})
    names = [f"{side.host}/{name}" for name in ("team/one:1", "team/two:1", "team/one:2")]
    await store.build(context, *BOTH, *(flag for name in names for flag in ("-t", name)), "--push")
    seen = side.seen()
    assert len({inspect(name) for name in names}) == 1
    sent = [entry for entry in seen if re.match(r"PUT 201 .*/uploads/|PATCH ", entry)]
    assert len(sent) == 5  # the layer of both, one of each, and two configs
    mounted = [entry for entry in seen if " from " in entry]
    assert mounted == ["POST 201 team/two/blobs/uploads/ from team/one"] * 5
    assert not [entry for entry in seen if entry.startswith("GET") and "/blobs/" in entry]


def test_no_third_host_hears_of_it(side: Side, empty_store: Store, context: Path) -> None:
    """Whatever is not on loopback would go through the proxy of the environment. One name that is not shows it."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, serving("docker", context.parent / "source") as source:
        proxy.setblocking(False)
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        empty_store.environment |= {"HTTP_PROXY": url, "HTTPS_PROXY": url}
        empty_store.command("build", context, *BOTH, "-t", f"{source.host}/base:1", "--push")
        write(context, {"Dockerfile": f"FROM {source.host}/base:1\nCOPY a /new\n"})
        empty_store.command("build", context, *BOTH, "--pull", "-t", f"{side.host}/app:1", "--push")
        empty_store.command("pull", f"{side.host}/app:1")
        empty_store.command("imagetools", "create", "-t", f"{source.host}/copy:1", f"{side.host}/app:1")
        with pytest.raises(BlockingIOError):
            proxy.accept()
        with empty_store.start("pull", "registry.invalid/app:1"):
            proxy.settimeout(30)
            proxy.accept()[0].close()


async def test_a_base_of_another_registry_goes_through(side: Side, empty_store: Store, context: Path) -> None:
    with serving("docker", empty_store.root.parent / "source") as source:
        await push(BASE, f"{source.host}/base:1")
        write(context, {"Dockerfile": f"FROM {source.host}/base:1\nLABEL a=b\n"})
        source.seen()
        await empty_store.build(context, "-t", f"{side.host}/app:1", "--push")
        asked = source.seen()
    assert len(transfers(asked)) == 3  # the config and both layers, once
    assert not [entry for entry in asked if not entry.startswith("GET ")]
    assert "from" not in "".join(side.seen())
    await pulled(f"{side.host}/app:1")


async def test_a_second_build_remembers_where_its_layers_are(side: Side, store: Store, context: Path) -> None:
    """Layers that were built here are mounted from where an earlier command pushed them."""
    store.command("build", "-t", f"{side.host}/team/one:1", "--push", context)
    side.seen()
    write(context, {"Dockerfile": "FROM scratch\nCOPY a /a\nCOPY b /b\nLABEL x=y\n"})
    store.command("build", "-t", f"{side.host}/team/two:1", "--push", context)
    seen = side.seen()
    assert seen.count("POST 201 team/two/blobs/uploads/ from team/one") == 2
    assert len(transfers(seen)) == 1  # the new config


async def test_what_is_exported_here_stays_when_the_push_fails(store: Store, context: Path, tmp_path: Path) -> None:
    archive = tmp_path / "app.tar"
    outputs = ("-o", "type=image,name=127.0.0.1:1/app,push=true", "-o", f"type=oci,dest={archive}")
    ended = store.command("build", *outputs, context, status=1)
    assert "cannot reach http://127.0.0.1:1/v2/app/" in ended.error
    assert archive.stat().st_size > 0


async def test_loaded_and_pushed(side: Side, store: Store, context: Path) -> None:
    await store.build(context, "-t", f"{side.host}/app:1", "--push", "--load")
    assert f"{side.host}/app" in store.command("image", "ls").stdout
    await pulled(f"{side.host}/app:1")


async def test_an_insecure_registry(side: Side, store: Store, context: Path) -> None:
    """`registry.insecure` takes plain HTTP where the configuration wants TLS; without it that is an error."""
    config = write(store.root.parent, {"p.toml": f'[registry."{side.host}"]\nhttp = false\n'}) / "p.toml"
    output = f"type=image,name={side.host}/app:1,push=true"
    refused = store.command("build", "-o", output, context, status=1, environment={"PYBUILD_CONFIG": str(config)})
    assert f"cannot reach https://{side.host}/" in refused.error
    insecure = f"{output},registry.insecure=true"
    store.command("build", "-o", insecure, context, environment={"PYBUILD_CONFIG": str(config)})
    await pulled(f"{side.host}/app:1")


# --- pybuild push -------------------------------------------------------------------------------------------


async def test_a_stored_image(side: Side, store: Store, context: Path) -> None:
    await store.build(context, "-t", f"{side.host}/app:1", "-o", "type=image")
    pushed = store.command("push", f"{side.host}/app:1")
    digest = Digest.sha256(inspect(f"{side.host}/app:1"))
    assert pushed.stdout == f"{side.host}/app:1@{digest}\n"
    assert f"pushing manifest for {side.host}/app:1@{digest}" in pushed.error
    assert len(transfers(side.seen())) == 3
    assert store.command("push", "-q", f"{side.host}/app:1").error == ""
    assert transfers(side.seen()) == []
    id = store.command("image", "ls", "-q").stdout.split()[0]
    more = store.command("push", id, f"{side.host}/other:a", f"{side.host}/other:b")
    assert more.stdout == f"{side.host}/other:a@{digest}\n{side.host}/other:b@{digest}\n"
    assert Digest.sha256(inspect(f"{side.host}/other:b")) == digest


async def test_platforms_that_were_not_pulled_are_copied(side: Side, empty_store: Store, tmp_path: Path) -> None:
    images = [Image(architecture=name, layers=(gzip.compress(name.encode()),)) for name in ("amd64", "arm64")]
    raw = index(*(image.entry() for image in images))
    root = Descriptor(media_type=types.OCI_INDEX, digest=Digest.sha256(raw), size=len(raw))
    content = MemoryContent.of(*images)
    content.blobs[root.digest] = raw
    with serving("docker", tmp_path / "source") as source:
        async with pusher() as client:
            await client.push(root, content, [reference.parse(f"{source.host}/app:1")])
        empty_store.command("pull", f"{source.host}/app:1")
        empty_store.command("push", f"{source.host}/app:1", f"{side.host}/copy:1")
        assert inspect(f"{side.host}/copy:1") == raw
        for architecture in ("amd64", "arm64"):
            await pulled(f"{side.host}/copy:1", platform=f"linux/{architecture}")
        assert (
            len(
                [entry for entry in source.seen() if f"GET 200 app/blobs/{Digest.sha256(images[0].layers[0])}" == entry]
            )
            == 1
        )


async def test_what_cannot_be_pushed(store: Store) -> None:
    assert "no such image: nothing" in store.command("push", "nothing", status=1).error
    id = store.command("image", "ls", "-q").stdout.split()[0]
    assert f"hint: give one: pybuild push {id} NAME" in store.command("push", id, status=1).error
    assert "cannot reach" in store.command("push", "base", "127.0.0.1:1/app", status=1).error


async def test_the_login_of_docker(store: Store, context: Path, tmp_path: Path) -> None:
    """Passwords come from docker's file; without the right one the error names the account and the cure."""
    file = tmp_path / "htpasswd"
    file.write_text(f"user:{HASH}\n")
    docker = Docker(tmp_path / "registry", auth={"htpasswd": {"realm": "here", "path": str(file)}})
    try:
        arguments = ("build", "-t", f"{docker.host}/app:1", "--push", context)
        for login, hint in (("user:wrong", "asked as 'user'; `pybuild login"), ("", "log in with `pybuild login")):
            keep_login(store, docker.host, login)
            ended = store.command(*arguments, status=1)
            assert hint in ended.error
            assert "wrong" not in ended.error.replace("password is wrong", "")
        keep_login(store, docker.host, "user:secret")
        store.command(*arguments)
    finally:
        docker.stop()


def keep_login(store: Store, host: str, login: str) -> None:
    auths = {host: {"auth": base64.b64encode(login.encode()).decode()}} if login else {}
    write(Path(store.environment["HOME"]), {".docker/config.json": json.dumps({"auths": auths})})


# --- bad networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [FAULTS, ("cut request", "lost reply")])
async def test_a_bad_network_makes_no_wrong_image_and_rarely_fails(side: Side, kinds: tuple[str, ...]) -> None:
    failures = []
    for seed in range(6):
        image = Image(layers=(os.urandom(600_000), os.urandom(50_000), b"small" + os.urandom(4)))
        async with faulty_proxy(side.host, seed=seed, rate=0.2, kinds=kinds) as proxy:
            try:
                with trio.fail_after(30):
                    await push(image, f"{proxy.host}/app{seed}:1")
            except SourceError as error:
                failures.append(f"{seed}: {error}")
                continue
            assert any(request.fault.kind for request in proxy.seen)
        found = await pulled(f"{side.host}/app{seed}:1")
        assert found.manifest.raw == image.manifest
    assert len(failures) <= 1, failures
