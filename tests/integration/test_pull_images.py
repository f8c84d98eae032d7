"""`pybuild pull`: what it says, what it asks a registry for, and what is then in the local store."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from backports import zstd

from buildengine.digest import Digest
from tests.fakes.commands import Commands, Ended, open_commands
from tests.fakes.hostile_archives import tar
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.registry_server import FakeRegistry, Image, descriptor, fake_registry, index
from tests.integration.test_registry_docker import DockerRegistry
from worker.oci import types
from worker.oci.jsonbytes import compact

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with open_commands() as running:
        yield running


class Pybuild:
    """The command on a state directory of its own. Its `auths` are what docker's configuration file says."""

    def __init__(self, commands: Commands, directory: Path) -> None:
        self._commands = commands
        self.directory = directory
        self.auths: dict[str, str] = {}

    async def __call__(self, *arguments: object, status: int = 0) -> Ended:
        (self.directory / "config.json").write_bytes(
            compact({"auths": {h: {"auth": a} for h, a in self.auths.items()}})
        )
        environment = {"DOCKER_CONFIG": str(self.directory)}
        run = partial(self._commands.run, "--root", self.directory / "root", *arguments, environment=environment)
        ended = await trio.to_thread.run_sync(run)
        assert ended.status == status, ended.text
        return ended

    async def files(self, base: str, *flags: str) -> dict[str, bytes]:
        """The files of an image that is built on `base`."""
        out, context = self.directory / "out", self.directory / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /made\n")
        await self("build", "-o", out, *flags, context)
        found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "made"}
        shutil.rmtree(out)
        return found


@pytest.fixture
def pybuild(commands: Commands, tmp_path: Path) -> Pybuild:
    return Pybuild(commands, tmp_path)


def plain(name: str) -> bytes:
    return tar((name, "file", name.encode()))


def image(*names: str, architecture: str = "amd64", oci: bool = True) -> Image:
    """One layer for each name, with a file of that name."""
    rootfs = {"type": "layers", "diff_ids": [str(Digest.sha256(plain(name))) for name in names]}
    config = compact({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs})
    layers = [gzip.compress(plain(name), mtime=0) for name in names]
    return Image(layers=layers, architecture=architecture, config=config, oci=oci)


async def raw_document(image: str, *flags: str) -> bytes:
    """The manifest or index of an image, as skopeo sees it."""
    done = await trio.run_process(["skopeo", "inspect", "--raw", *flags, image], capture_stdout=True)
    return done.stdout


def asked(registry: FakeRegistry) -> list[str]:
    return [f"{r.method} {r.path.removeprefix('/v2/')}" for r in registry.server.requests]


# --- what it says and asks ----------------------------------------------------------------------------------


async def test_it_speaks_as_docker_does(pybuild: Pybuild) -> None:
    first, second = image("a", "b"), image("a", "c")
    short = {name: Digest.sha256(layer).hex[:12] for name, layer in zip("ab", first.layers, strict=True)}
    async with fake_registry() as registry:
        digest = registry.put("team/app", "latest", first)
        name = f"{registry.host}/team/app"
        lines = (await pybuild("pull", name)).stdout.decode().splitlines()
        assert lines[:2] == ["Using default tag: latest", "latest: Pulling from team/app"]
        assert sorted(lines[2:4]) == sorted(f"{short[layer]}: Pull complete" for layer in "ab")
        assert lines[4:] == [
            f"Digest: {digest}",
            f"Status: Downloaded newer image for {name}:latest",
            f"{name}:latest",
        ]
        before = len(registry.server.requests)
        again = (await pybuild("pull", f"{name}:latest")).stdout.decode().splitlines()
        assert again[0] == "latest: Pulling from team/app"
        assert f"{short['a']}: Already exists" in again
        assert f"Status: Image is up to date for {name}:latest" in again
        assert asked(registry)[before:] == ["HEAD team/app/manifests/latest"]
        registry.put("team/app", "latest", second)
        assert b"Downloaded newer image" in (await pybuild("pull", name)).stdout
        assert asked(registry).count(f"GET team/app/blobs/{Digest.sha256(first.layers[0])}") == 1
        assert (await pybuild("pull", "-q", f"{name}@{digest}")).stdout.decode() == f"{name}@{digest}\n"


async def test_an_image_is_whole_when_its_registry_is_gone(pybuild: Pybuild) -> None:
    async with fake_registry() as registry:
        registry.put("app", "1", image("a", "b"))
        name = f"{registry.host}/app:1"
        await pybuild("pull", name)
    assert await pybuild.files(name) == {"a": b"a", "b": b"b"}
    ended = await pybuild("build", "--pull", pybuild.directory / "context", status=1)
    assert f"cannot reach http://{name.partition('/')[0]}/v2/app/manifests/1: connection refused" in ended.report
    assert ended.seconds < 5


async def test_a_digest_opens_nothing_that_its_registry_would_not_send(pybuild: Pybuild) -> None:
    """A store that several use: what one was allowed to pull is no other's by knowing its digest."""
    secret = image("a", "b")
    async with fake_registry(basic="ann:secret") as private, fake_registry() as public:
        digest = private.put("team/app", "1", secret)
        pybuild.auths = {private.host: base64.b64encode(b"ann:secret").decode()}
        assert await pybuild.files(f"{private.host}/team/app@{digest}") == {"a": b"a", "b": b"b"}
        pybuild.auths = {}
        public.put_manifest("thief", "index", index(secret.entry()))
        for base in (f"{private.host}/team/b@{digest}", f"{public.host}/thief@{digest}", f"{public.host}/thief:index"):
            (pybuild.directory / "context/Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /made\n")
            await pybuild("build", pybuild.directory / "context", status=1)
        await pybuild("pull", f"{public.host}/thief@{digest}", status=1)
        assert f"GET thief/manifests/{digest}" in asked(public)

        before = len(public.server.requests)
        public.put("copy", "1", secret)
        copy = f"{public.host}/copy@{digest}"
        assert await pybuild.files(copy) == {"a": b"a", "b": b"b"}
        assert asked(public)[before:] == [
            f"GET copy/manifests/{digest}",
            f"GET copy/blobs/{Digest.sha256(secret.config)}",
        ], "no layer that is here"
    for base in (copy, f"{private.host}/team/app@{digest}"):
        assert await pybuild.files(base) == {"a": b"a", "b": b"b"}, "what a repository has sent needs it no more"


async def test_pull_asks_for_what_is_newer_and_a_build_alone_does_not(pybuild: Pybuild) -> None:
    async with fake_registry() as registry:
        registry.put("app", "1", image("old"))
        name = f"{registry.host}/app:1"
        await pybuild("pull", name)
        registry.put("app", "1", image("new"))
        before = len(registry.server.requests)
        assert await pybuild.files(name) == {"old": b"old"}
        assert len(registry.server.requests) == before
        assert await pybuild.files(name, "--pull") == {"new": b"new"}


# --- platforms ----------------------------------------------------------------------------------------------


async def test_one_platform_of_an_index_or_all_of_them(pybuild: Pybuild) -> None:
    amd, arm = image("amd"), image("arm", architecture="arm64")
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    async with fake_registry() as registry:
        for each in (amd, arm):
            registry.put("app", "", each)
        proof = image("proof", architecture="unknown")
        registry.put("app", "", proof)
        raw = index(
            amd.entry(), arm.entry(), {**proof.entry(architecture="unknown", os="unknown"), "annotations": note}
        )
        digest = registry.put_manifest("app", "1", raw)
        name = f"{registry.host}/app:1"
        assert f"Digest: {digest}" in (await pybuild("pull", "--platform", "linux/arm64", name)).stdout.decode()
        blobs = [path for path in asked(registry) if "/blobs/" in path]
        assert blobs == [f"GET app/blobs/{Digest.sha256(data)}" for data in (arm.config, *arm.layers)]
        await pybuild("pull", "--all-platforms", name)
        assert len(asked(registry)) == len(set(asked(registry)) - {"HEAD app/manifests/1"}) + 1
    archive = pybuild.directory / "saved.tar"
    await pybuild("image", "save", "-o", archive, name)
    assert await raw_document(f"oci-archive:{archive}") == raw
    listed = (await pybuild("image", "ls", "--format", "{{.Platforms}}")).stdout.decode()
    assert listed.strip() == "linux/amd64, linux/arm64"


@pytest.mark.parametrize(
    ("flags", "report"),
    [
        (("--platform", "linux/s390x"), "is an image for linux/amd64, not for linux/s390x"),
        (("--platform", "linux/amd64,linux/arm64"), "--platform names several platforms"),
        (("--platform", "linux/amd64", "--all-platforms"), "exclude each other"),
        (("--platform", "linuks"), "invalid platform 'linuks'"),
    ],
)
async def test_a_platform_that_is_not_there(pybuild: Pybuild, flags: tuple[str, ...], report: str) -> None:
    async with fake_registry() as registry:
        registry.put("app", "1", image("a"))
        ended = await pybuild("pull", *flags, f"{registry.host}/app:1", status=1 if "s390x" in flags[-1] else 2)
    assert report in ended.text
    assert (await pybuild("image", "ls", "-q")).stdout == b""


async def test_an_index_of_indexes_and_a_digest_of_it(pybuild: Pybuild) -> None:
    inner = image("deep")
    async with fake_registry() as registry:
        registry.put("app", "", inner)
        middle = index(inner.entry())
        registry.put_manifest("app", "", middle)
        platform = {"os": "linux", "architecture": "amd64"}
        outer = registry.put_manifest("app", "1", index(descriptor(middle, types.OCI_INDEX, platform=platform)))
        name = f"{registry.host}/app@{outer}"
        await pybuild("pull", name)
    assert await pybuild.files(name) == {"deep": b"deep"}


# --- kinds of layers ----------------------------------------------------------------------------------------


async def test_every_compression_and_a_layer_that_lies_elsewhere(pybuild: Pybuild) -> None:
    """Pulled whole by `pull`, and lazily by a build; the other host is asked without credentials."""
    names = ("gzip", "zstd", "none", "far")
    whole = image(*names)
    layers = [whole.layers[0], zstd.compress(plain("zstd")), plain("none"), whole.layers[3]]
    kinds = [types.OCI_LAYER_GZIP, types.OCI_LAYER_ZSTD, types.OCI_LAYER, FOREIGN]
    async with serve(lambda request: Reply(body=layers[3])) as far, fake_registry(basic="user:secret") as registry:
        described = [descriptor(data, kind) for data, kind in zip(layers, kinds, strict=True)]
        described[3]["urls"] = ["file:///etc/passwd", f"{far.url}/far?signature=1"]
        config = descriptor(whole.config, types.OCI_CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": types.OCI_MANIFEST, "config": config, "layers": described}
        for data in (whole.config, *layers[:3]):
            registry.blobs[str(Digest.sha256(data))] = data
        registry.put_manifest("app", "1", compact(manifest), types.OCI_MANIFEST)
        pybuild.auths[registry.host] = base64.b64encode(b"user:secret").decode()
        name = f"{registry.host}/app:1"
        assert await pybuild.files(name) == {kind: kind.encode() for kind in names}
        await pybuild("prune", "--all", "--force")
        await pybuild("pull", name)
        assert [request.target for request in far.requests] == ["/far?signature=1"] * 2
        assert all("authorization" not in request.headers for request in far.requests)
    assert await pybuild.files(name) == {kind: kind.encode() for kind in names}


# --- registries that are not one host -----------------------------------------------------------------------


async def test_blobs_on_another_host_and_a_token_that_ends_in_the_middle(pybuild: Pybuild) -> None:
    """The store of the blobs sees no credentials."""
    whole = image("a", "b", "c")
    revoked = blobs_asked = 0

    def revoking(request: Request) -> Reply | None:
        """At the second blob all tokens lose their worth."""
        nonlocal revoked, blobs_asked
        number = int(request.headers.get("authorization", "Bearer token-0").partition("-")[2] or 0)
        if number <= revoked or "/blobs/" not in request.path:
            return None if number > revoked or request.path == "/token" else challenge()
        blobs_asked += 1
        if blobs_asked == 2:
            revoked = registry.tokens_given
            return challenge()
        return None

    def challenge() -> Reply:
        realm = f'Bearer realm="{registry.server.url}/token",service="fake"'
        return Reply(status=401, headers={"www-authenticate": realm})

    def moved(request: Request) -> Reply | None:
        path = request.path.rpartition("/")[2]
        sent = request.headers.get("authorization", "")
        if "/blobs/" not in request.path or not sent.startswith("Bearer"):
            return None
        return Reply(status=307, headers={"location": f"{store.url}/{path}?X-Signature=secret"})

    blobs = {str(Digest.sha256(data)): data for data in (whole.config, *whole.layers)}
    async with (
        serve(lambda request: Reply(body=blobs[request.path[1:]])) as store,
        fake_registry(bearer="user:secret", rules=[]) as registry,
    ):
        registry.rules = [revoking, moved]
        registry.put("app", "1", whole)
        pybuild.auths[registry.host] = base64.b64encode(b"user:secret").decode()
        ended = await pybuild("--debug", "pull", f"{registry.host}/app:1")
        assert len(store.requests) == 4
        assert all("authorization" not in request.headers for request in store.requests)
        assert registry.tokens_given == 2
        assert "secret" not in ended.text
        store.handler = lambda request: Reply(status=403)
        registry.put("app", "2", image("d"))
        blobs.update({str(Digest.sha256(data)): data for data in (image("d").config,)})
        refused = await pybuild("--debug", "pull", f"{registry.host}/app:2", status=1)
        assert "secret" not in refused.text
        assert base64.b64encode(b"user:secret").decode() not in refused.text


async def test_a_mirror_that_refuses_costs_no_time(pybuild: Pybuild) -> None:
    async with fake_registry() as registry:
        registry.put("app", "1", image("a"))
        (pybuild.directory / "pybuild.toml").write_text(f'[registry."{registry.host}"]\nmirrors = ["127.0.0.1:1"]\n')
        ended = await pybuild("--config", pybuild.directory / "pybuild.toml", "pull", f"{registry.host}/app:1")
    assert ended.seconds < 5


# --- docker's own registry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["oci", "v2s2"])
async def test_what_skopeo_pushed_comes_back_the_same(pybuild: Pybuild, tmp_path: Path, format_: str) -> None:
    registry = DockerRegistry(tmp_path / "registry")
    try:
        async with fake_registry() as source:
            source.put("app", "1", image("a", "b"))
            await trio.to_thread.run_sync(
                lambda: registry.push(
                    f"docker://{source.host}/app:1", "app:1", f"--format={format_}", "--src-tls-verify=false"
                )
            )
        name = f"{registry.host}/app:1"
        pulled = (await pybuild("pull", name)).stdout.decode()
        shown = await raw_document(f"docker://{name}", "--tls-verify=false")
        assert f"Digest: {Digest.sha256(shown)}" in pulled
        assert ("docker" in json.loads(shown)["config"]["mediaType"]) == (format_ == "v2s2")
    finally:
        registry.stop()
    assert await pybuild.files(name) == {"a": b"a", "b": b"b"}
