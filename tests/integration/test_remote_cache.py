"""The cache of a build in its image, and what builds on other machines make of it: their stores are empty."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buildengine.builder import BuildRequest, CacheEntry, Export
from buildengine.daemon.engine import open_engine
from buildengine.daemon.frontends import DefinitionFrontend
from buildengine.daemon.local_session import DockerConfigCredentials, local_session
from buildengine.digest import Digest
from buildengine.events import Event, Outcome, VertexEvent
from llb.state import State, merge, mkdir, mkfile, scratch
from tests.builds import FIXTURES, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.remote_command import remote
from tests.integration.test_push import BOTH, Side, inspect, serving, transfers
from worker.oci import types

pytest_plugins = [FIXTURES]

INLINE = ("--cache-to", "type=inline")
CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
DOCKERFILE = """\
FROM base AS tools
RUN echo made > /tool && date +%N > /stamp
FROM base
COPY a /a
COPY --from=tools /tool /stamp /usr/
RUN cat /a /usr/tool && date +%N > /unique
"""


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with serving("own", tmp_path / "registry") as running:
        yield running


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a": "content of a\n"})


@pytest.fixture
def elsewhere(store_with_base: Store, tmp_path: Path) -> Store:
    """Another machine: it has the base, and nothing of the builds."""
    return store_with_base.copy(tmp_path / "elsewhere")


class Repository:
    """One of a registry, by plain requests."""

    def __init__(self, name: str) -> None:
        host, _, path = name.partition("/")
        self._url = f"http://{host}/v2/{path.partition(':')[0]}"

    def blob(self, digest: str) -> bytes:
        with urllib.request.urlopen(f"{self._url}/blobs/{digest}") as response:
            data: bytes = response.read()
        return data

    def put_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        with urllib.request.urlopen(urllib.request.Request(f"{self._url}/blobs/uploads/", method="POST")) as response:
            place = response.headers["location"]
        descriptor = {"mediaType": media_type, "digest": str(Digest.sha256(data)), "size": len(data)}
        url = place if "://" in place else self._url.partition("/v2/")[0] + place
        url += f"{'&' if '?' in url else '?'}digest={descriptor['digest']}"
        headers = {"content-type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(url, data, headers, method="PUT")).close()
        return descriptor

    def put_manifest(self, tag: str, document: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self._url}/manifests/{tag}",
            json.dumps(document).encode(),
            {"content-type": document["mediaType"]},
            method="PUT",
        )
        urllib.request.urlopen(request).close()


def config_of(name: str) -> dict[str, Any]:
    manifest = json.loads(inspect(name))
    config: dict[str, Any] = json.loads(Repository(name).blob(manifest["config"]["digest"]))
    return config


def records_of(name: str) -> Any:
    return json.loads(base64.b64decode(config_of(name)["moby.buildkit.cache.v0"]))


def imported(name: str) -> str:
    return f"importing cache manifest from {name}"


async def test_another_machine_runs_nothing_and_moves_nothing(
    side: Side, store: Store, elsewhere: Store, context: Path, tmp_path: Path
) -> None:
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    first = inspect(name)
    assert [len(record.get("layers", ())) for record in records_of(name)].count(1) == 3
    moved = Path(shutil.copytree(context, tmp_path / "moved"))
    os.utime(moved / "a", (1, 1))
    side.seen()
    again = await elsewhere.build(moved, "-t", name, "--push", *INLINE, "--cache-from", name)
    assert again.ran == []
    assert again.cached == ["COPY a /a", "COPY --from=tools /tool /stamp /usr/", again.instructions("cached")[-1]]
    assert again.step(imported(name)).outcome == "done"
    assert inspect(name) == first
    config = json.loads(first)["config"]["digest"]
    assert transfers(side.seen()) == [f"GET 200 app/blobs/{config}"]


async def test_what_was_imported_is_there_without_it(
    side: Side, store: Store, elsewhere: Store, context: Path, tmp_path: Path
) -> None:
    """Layers are fetched when a step reads them, and what follows needs the image no more."""
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    await elsewhere.build(context, "--cache-from", f"type=registry,ref={name}")
    side.seen()
    write(context, {"Dockerfile": DOCKERFILE.replace("RUN cat /a", "RUN cat /usr/stamp /a")})
    built = await elsewhere.build(context)
    assert built.ran == ["RUN cat /usr/stamp /a /usr/tool && date +%N > /unique"]
    assert "content of a\nmade\n" in built.step("RUN cat").output
    assert len([entry for entry in transfers(side.seen()) if entry.startswith("GET 200 app/blobs")]) == 2
    elsewhere.command("debug", "verify-store")


async def test_a_stage_that_is_made_otherwise(side: Side, store: Store, elsewhere: Store, context: Path) -> None:
    """What is copied from it holds the same: the copy is found by that, also by way of a second machine's image."""
    name, second = f"{side.host}/app:1", f"{side.host}/app:2"
    write(context, {"Dockerfile": DOCKERFILE.replace("date +%N", "echo 1")})
    await store.build(context, "-t", name, "--push", *INLINE)
    await elsewhere.build(context, "-t", second, "--push", *INLINE, "--cache-from", name)
    assert records_of(second) == records_of(name)
    write(context, {"Dockerfile": DOCKERFILE.replace("date +%N", "echo 1").replace("RUN echo", "RUN : ; echo")})
    built = await elsewhere.build(context, "--cache-from", second)
    assert built.ran == ["RUN : ; echo made > /tool && echo 1 > /stamp"]


async def test_times_are_rewritten_in_layers_that_were_imported(
    side: Side, store: Store, elsewhere: Store, context: Path
) -> None:
    """As in those that were made here; the base's stay."""
    write(context, {"Dockerfile": "FROM base\nCOPY a /a\nRUN cp /a /b\n"})
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    made = []
    for number, machine in enumerate((store, elsewhere)):
        machine.environment["SOURCE_DATE_EPOCH"] = "1600000000"
        image = f"{side.host}/app:epoch{number}"
        output = f"type=image,name={image},push=true,rewrite-timestamp=true"
        built = await machine.build(context, "-o", output, "--cache-from", name)
        assert built.ran == []
        made.append(json.loads(inspect(image))["layers"])
    assert made[0] == made[1]
    assert made[0][0] == json.loads(inspect(name))["layers"][0]
    assert made[0][1] != json.loads(inspect(name))["layers"][1]


async def test_no_cache(side: Side, store: Store, elsewhere: Store, context: Path) -> None:
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    built = await elsewhere.build(context, "--cache-from", name, "--no-cache")
    assert built.cached == []
    assert len(built.ran) == 4


async def test_two_platforms(side: Side, store: Store, elsewhere: Store, context: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY a /all\nCOPY of-$TARGETARCH /own\n"
    write(context, {"Dockerfile": text, "of-amd64": "for amd64", "of-arm64": "for arm64"})
    name = f"{side.host}/app:1"
    await store.build(context, *BOTH, "-t", name, "--push", *INLINE)
    first = inspect(name)
    built = await elsewhere.build(context, *BOTH, "-t", name, "--push", *INLINE, "--cache-from", name)
    assert built.ran == []
    assert inspect(name) == first


async def test_an_image_with_attestations(side: Side, store: Store, elsewhere: Store, context: Path) -> None:
    """Its index has manifests that are no images, and hold no cache."""
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", "--provenance", "true", *INLINE)
    assert len(json.loads(inspect(name))["manifests"]) == 2
    built = await elsewhere.build(context, "-t", name, "--push", "--cache-from", name)
    assert built.ran == []
    assert built.step(imported(name)).outcome == "done"


async def test_the_cache_of_a_base_is_not_that_of_the_image(side: Side, store: Store, context: Path) -> None:
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    write(context, {"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
    await store.build(context, "-t", f"{side.host}/app:2", "--push")
    assert "moby.buildkit.cache.v0" not in config_of(f"{side.host}/app:2")


@pytest.mark.parametrize("form", ["manifest", "index"])
async def test_a_cache_by_itself(side: Side, store: Store, elsewhere: Store, context: Path, form: str) -> None:
    """As BuildKit's exporter to a registry writes it; here from what an image holds."""
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    layers = json.loads(inspect(name))["layers"]
    for layer, diff_id in zip(layers, config_of(name)["rootfs"]["diff_ids"], strict=True):
        layer["annotations"] = {"containerd.io/uncompressed": diff_id}
    chain = [{"blob": layer["digest"], "parent": number - 1} for number, layer in enumerate(layers)]
    repository = Repository(name)
    document = json.dumps({"layers": chain, "records": records_of(name)}).encode()
    config = repository.put_blob(document, CACHE_CONFIG)
    if form == "manifest":
        manifest = {"schemaVersion": 2, "mediaType": types.OCI_MANIFEST, "config": config, "layers": layers}
    else:
        manifest = {"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": [*layers, config]}
    repository.put_manifest("cache", manifest)
    cache = f"{side.host}/app:cache"
    built = await elsewhere.build(context, "--cache-from", cache)
    assert built.ran == []
    assert built.step(imported(cache)).outcome == "done"


def test_a_daemon_elsewhere(side: Side, store: Store, elsewhere: Store, context: Path, tmp_path: Path) -> None:
    """The flags of `pybuild --addr` mean the same."""
    name = f"{side.host}/app:1"
    store.command("build", context, "-t", name, "--push", *INLINE)
    with daemon(elsewhere.root, tmp_path) as running:
        there = remote(running, elsewhere)
        built = there.run("build", context, "-t", f"{side.host}/app:2", "--push", *INLINE, "--cache-from", name)
        assert built.ran == []
        assert built.step(imported(name)).outcome == "done"
        assert json.loads(inspect(f"{side.host}/app:2")) == json.loads(inspect(name))
        refused = there.run("build", context, "--cache-to", "type=s3,bucket=b", status=1)
    assert 'unknown cache exporter: "s3"' in refused.error


async def solved(store: Store, state: State, name: str, *caches: str) -> list[str]:
    """Push what `state` is, with its cache; the names of the steps that were executed."""
    request = BuildRequest(
        ref="r",
        frontend="",
        exports=(Export(type="image", attrs={"name": name, "push": "true"}),),
        cache_exports=(CacheEntry(type="inline"),),
        cache_imports=tuple(CacheEntry(type="registry", attrs={"ref": cache}) for cache in caches),
    )
    session = local_session(request, credentials=DockerConfigCredentials(Path("/nowhere"), {}), environment={})
    told: list[Event] = []
    async with open_engine(store.config) as engine:
        await engine.build(request, session, told.append, frontend=DefinitionFrontend(definition=state.marshal()))
    done = [each.name for each in told if isinstance(each, VertexEvent) and each.outcome is Outcome.DONE]
    return [each for each in done if each.startswith("make ")]


def made(name: str) -> State:
    """Two layers, of which the second has a result in the cache: what begins with nothing is no key's result there."""
    return scratch().file(mkdir(f"/{name}")).file(mkfile(f"/{name}/it", os.urandom(8)), name=f"make {name}")


async def test_results_that_are_made_of_others(side: Side, tmp_path: Path) -> None:
    """What is merged are layers of the image that do not lie on those before them: each is found alone too."""
    machines = [Store(tmp_path / str(number), tmp_path) for number in range(3)]
    one, two = made("one"), made("two")
    merged = merge([one, two]).file(mkfile("/top", b""), name="make top")
    first, second = f"{side.host}/app:1", f"{side.host}/app:2"
    assert sorted(await solved(machines[0], merged, first)) == ["make one", "make top", "make two"]
    assert [len(record.get("chains", ())) for record in records_of(first)].count(1) == 1
    assert await solved(machines[1], merged, second, first) == []
    assert inspect(second) == inspect(first)
    alone = two.file(mkfile("/above", b""), name="make above")
    ran = await solved(machines[2], merge([alone, made("three")]), second, first)
    assert sorted(ran) == ["make above", "make three"]
    machines[2].command("debug", "verify-store")


LOOP = [{"digest": "a", "inputs": [[{"link": 1}]]}, {"digest": "b", "inputs": [[{"link": 0}]]}]


async def test_an_import_that_fails_is_no_failed_build(side: Side, store: Store, context: Path) -> None:
    repository = Repository(f"{side.host}/app")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    config["moby.buildkit.cache.v0"] = base64.b64encode(json.dumps(LOOP).encode()).decode()
    described = repository.put_blob(json.dumps(config).encode(), types.OCI_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": types.OCI_MANIFEST, "config": described, "layers": []}
    repository.put_manifest("loop", manifest)
    told = {
        f"{side.host}/app:none": "MANIFEST_UNKNOWN",
        f"{side.host}/app:loop": "invalid looping record",
        "127.0.0.1:1/app:1": "refused",
    }
    built = await store.build(context, *[part for name in told for part in ("--cache-from", name)])
    assert len(built.ran) == 4
    for name, error in told.items():
        step = built.step(imported(name))
        assert step.outcome == "failed"
        assert error in step.error


async def test_an_insecure_registry(side: Side, store: Store, elsewhere: Store, context: Path) -> None:
    """Plain HTTP where the configuration wants TLS: for the documents, and for layers when they are read."""
    name = f"{side.host}/app:1"
    await store.build(context, "-t", name, "--push", *INLINE)
    config = write(store.root.parent, {"p.toml": f'[registry."{side.host}"]\nhttp = false\n'}) / "p.toml"
    elsewhere.environment["PYBUILD_CONFIG"] = str(config)
    write(context, {"Dockerfile": f"{DOCKERFILE}RUN cat /unique\n"})
    cache = f"type=registry,ref={name}"
    built = await elsewhere.build(context, "--cache-from", f"{cache},registry.insecure=true")
    assert built.ran == ["RUN cat /unique"]
    assert built.step(imported(name)).outcome == "done"
    refused = await elsewhere.build(context, "--cache-from", cache)
    assert f"cannot reach https://{side.host}/" in refused.step(imported(name)).error


async def test_other_kinds_are_refused(store: Store, context: Path) -> None:
    built = store.command("build", context, "--cache-to", "type=registry,ref=r.example/cache", status=1)
    assert 'unknown cache exporter: "registry"' in built.error
    twice = ("--cache-to", "type=local,dest=d") * 2
    assert "duplicate cache exports [local]" in store.command("build", context, *twice, status=1).error
    built = await store.build(context, "--cache-from", "type=gha,scope=main")
    assert "unknown cache importer: gha" in built.step("importing cache manifest from gha:").error
