"""Pulls from docker's own registry, and archives that skopeo and umoci read: the other side is not ours."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trio

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import ConfigError, RegistryError, SourceError
from buildengine.platform import parse
from cache.store import ContentStore
from tests.fakes.registry_server import Logins, client
from worker.oci import dockertar, layout, types
from worker.oci.layout import Blob, NamedImage
from worker.oci.load import load_tar
from worker.oci.types import Descriptor, Index, parse_manifest
from worker.registry.hosts import HostConfig, KeyPair

AMD64 = parse("linux/amd64")
HASH = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"  # bcrypt of `secret`

# --- images -------------------------------------------------------------------------------------------------


def layer(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


class Built:
    """An image with two real layers, as a layout directory that skopeo can copy."""

    def __init__(self, architecture: str = "amd64", *, size: int = 3_000_000) -> None:
        plain = [layer("a", b"a" * 10), layer("b", random.Random(size).randbytes(size))]
        packed = [gzip.compress(data, 1, mtime=0) for data in plain]
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.sha256(data)) for data in plain]},
            "history": [{"created_by": "a"}, {"created_by": "b"}],
        }
        self.config = json.dumps(config).encode()
        layers = [Descriptor(media_type=types.OCI_LAYER_GZIP, digest=Digest.sha256(p), size=len(p)) for p in packed]
        described = Descriptor(media_type=types.OCI_CONFIG, digest=Digest.sha256(self.config), size=len(self.config))
        self.manifest = dockertar.manifest_bytes(types.OCI_MANIFEST, described, layers)
        self.layers = packed
        self.plain = plain

    @property
    def blobs(self) -> list[Blob]:
        return [_blob(data) for data in (self.manifest, self.config, *self.layers)]

    @property
    def target(self) -> Descriptor:
        return parse_manifest(self.manifest).descriptor

    def write(self, directory: Path, *names: str) -> Path:
        directory.mkdir()
        root = os.open(directory, os.O_RDONLY)
        layout.write_directory(root, [NamedImage(target=self.target, names=names)], self.blobs)
        os.close(root)
        return directory


def _blob(data: bytes) -> Blob:
    return Blob(digest=Digest.sha256(data), size=len(data), open=lambda: io.BytesIO(data))


@pytest.fixture(scope="module")
def built() -> Built:
    return Built()


# --- the other side -----------------------------------------------------------------------------------------


class DockerRegistry:
    def __init__(self, directory: Path, *, http: Mapping[str, object] | None = None, **more: object) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": {"addr": "127.0.0.1:0", **(http or {})},
            **more,
        }
        path = directory / "config.yml"
        path.write_text(json.dumps(config))
        log = directory / "log"
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(path)], stderr=sink, env={"PATH": os.environ["PATH"]}
            )
        found = None
        while found is None and self.process.poll() is None:
            time.sleep(0.005)
            found = re.search(rb"listening on (127\.0\.0\.1:\d+)", log.read_bytes())
        assert found, log.read_text()
        self.host = found[1].decode()

    def push(self, source: str, name: str, *options: str) -> None:
        command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options, source]
        subprocess.run([*command, f"docker://{self.host}/{name}"], check=True, capture_output=True)

    def put_manifest(self, repository: str, tag: str, raw: bytes, media_type: str) -> None:
        put = ["-X", "PUT", "-H", f"content-type: {media_type}", "--data-binary", "@-"]
        url = f"http://{self.host}/v2/{repository}/manifests/{tag}"
        subprocess.run(["curl", "-sf", *put, url], input=raw, check=True, capture_output=True)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    running = DockerRegistry(tmp_path_factory.mktemp("registry"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def pushed(registry: DockerRegistry, built: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image under several names and media types; its host."""
    source = built.write(tmp_path_factory.mktemp("layout") / "oci", "docker.io/library/app:1")
    registry.push(f"oci:{source}:1", "app:oci")
    registry.push(f"oci:{source}:1", "app:docker", "--format=v2s2")
    return registry.host


# --- pulls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["oci", "docker"])
async def test_a_pull_into_the_content_store(pushed: str, built: Built, tmp_path: Path, tag: str) -> None:
    store = ContentStore(tmp_path)
    events: list[tuple[Digest, int, int]] = []
    async with client() as registry:
        image = await registry.resolve(reference.parse(f"{pushed}/app:{tag}"), AMD64)
        async with trio.open_nursery() as nursery:
            for descriptor, _ in image.layers:

                async def fetch(descriptor: Descriptor = descriptor) -> None:
                    with store.writer(expected=descriptor.digest, size=descriptor.size) as writer:
                        await registry.fetch_blob(
                            descriptor, (image.origin,), writer, on_progress=lambda *event: events.append(event)
                        )
                        writer.commit()

                nursery.start_soon(fetch)
    assert image.manifest.media_type == (types.OCI_MANIFEST if tag == "oci" else types.DOCKER_MANIFEST)
    assert [diff for _, diff in image.layers] == [Digest.sha256(data) for data in built.plain]
    assert [store.read(layer.digest) for layer, _ in image.layers] == built.layers
    assert {digest for digest, current, total in events if current == total} == {d.digest for d, _ in image.layers}


async def test_the_second_pull_of_a_tag_is_one_head_request(pushed: str) -> None:
    async with client() as registry:
        first = await registry.resolve(reference.parse(f"{pushed}/app:oci"), AMD64)
        known = {first.digest: first.manifest.raw, first.config.digest: first.config.raw}
        again = await registry.resolve(first.reference, AMD64, known=known.get)
        tagged = await registry.resolve(
            reference.parse(f"{pushed}/app:oci"), AMD64, known=known.get, expected=first.digest
        )
    assert first.digest == again.digest == tagged.digest


async def test_an_index_of_two_platforms(registry: DockerRegistry, tmp_path: Path) -> None:
    images = {"amd64": Built(size=10), "arm64": Built("arm64", size=10)}
    entries = []
    for architecture, image in images.items():
        source = image.write(tmp_path / architecture, "docker.io/library/x:1")
        registry.push(f"oci:{source}:1", f"multi:{architecture}")
        entries.append({**image.target.to_json(), "platform": {"architecture": architecture, "os": "linux"}})
    raw = json.dumps({"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": entries}).encode()
    registry.put_manifest("multi", "both", raw, types.OCI_INDEX)
    async with client() as puller:
        for architecture, image in images.items():
            found = await puller.resolve(reference.parse(f"{registry.host}/multi:both"), parse(f"linux/{architecture}"))
            assert isinstance(found.index, Index)
            assert found.digest == Digest.sha256(raw)
            assert found.manifest.raw == image.manifest
        with pytest.raises(RegistryError, match="has no image for linux/s390x"):
            await puller.resolve(reference.parse(f"{registry.host}/multi:both"), parse("linux/s390x"))


async def test_what_it_does_not_have(pushed: str) -> None:
    async with client() as registry:
        for name in ("app:gone", "gone:1"):
            with pytest.raises(RegistryError) as caught:
                await registry.resolve(reference.parse(f"{pushed}/{name}"), AMD64)
            assert caught.value.status == 404
        missing = Descriptor(media_type="x", digest=Digest.sha256(b"missing"), size=7)
        with pytest.raises(RegistryError) as caught:
            await registry.fetch_blob(missing, (f"{pushed}/app",), io.BytesIO())
        assert caught.value.code == "BLOB_UNKNOWN"


async def test_it_asks_for_a_password(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(f"user:{HASH}\n")
    running = DockerRegistry(tmp_path / "registry", auth={"htpasswd": {"realm": "here", "path": str(file)}})
    try:
        source = Built(size=10).write(tmp_path / "oci", "docker.io/library/app:1")
        running.push(f"oci:{source}:1", "app:1", "--dest-creds=user:secret")
        name = reference.parse(f"{running.host}/app:1")
        async with client(Logins(**{running.host: "user:secret"})) as registry:
            image = await registry.resolve(name, AMD64)
            for descriptor, _ in image.layers:
                await registry.fetch_blob(descriptor, (image.origin,), io.BytesIO())
        for logins in (Logins(**{running.host: "user:wrong"}), Logins()):
            async with client(logins) as registry:
                with pytest.raises(RegistryError) as caught:
                    await registry.resolve(name, AMD64)
                assert caught.value.status == 401
    finally:
        running.stop()


# --- TLS ----------------------------------------------------------------------------------------------------


def certificate(directory: Path, name: str, *, signer: str = "") -> tuple[str, str]:
    """A certificate for 127.0.0.1 and its key, signed by `signer` or by itself."""
    key, request, out = (str(directory / f"{name}.{kind}") for kind in ("key", "csr", "pem"))
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    common = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    if not signer:
        subprocess.run([*common, "-x509", "-days", "2", "-out", out, *subject], check=True, capture_output=True)
        return out, key
    subprocess.run([*common, "-out", request, *subject], check=True, capture_output=True)
    sign = ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-CAcreateserial", "-copy_extensions", "copy"]
    subprocess.run(
        ["openssl", "x509", "-req", "-in", request, "-days", "2", "-out", out, *sign], check=True, capture_output=True
    )
    return out, key


async def test_certificates_are_checked_unless_the_configuration_says_not_to(tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path, "ca")
    server, key = certificate(tmp_path, "server", signer=str(tmp_path / "ca"))
    mine, my_key = certificate(tmp_path, "client", signer=str(tmp_path / "ca"))
    settings = {"certificate": server, "key": key, "clientcas": [ca]}
    running = DockerRegistry(tmp_path / "registry", http={"tls": settings})
    pair = (KeyPair(certificate=mine, key=my_key),)
    try:

        async def attempt(**fields: object) -> None:
            host = HostConfig(plain_http=False, **fields)
            async with client(hosts={running.host: host}) as registry:
                await registry.resolve(reference.parse(f"{running.host}/app:1"), AMD64)

        for good in ({"ca": (ca,), "key_pairs": pair}, {"insecure": True, "key_pairs": pair}):
            with pytest.raises(RegistryError, match="manifest unknown"):
                await attempt(**good)
        with pytest.raises(SourceError, match="its certificate is not trusted"):
            await attempt(key_pairs=pair)
        with pytest.raises(SourceError, match="cannot reach"):
            await attempt(ca=(ca,))
        with pytest.raises(ConfigError, match="cannot use one of the TLS files"):
            await attempt(ca=(str(tmp_path / "gone.pem"),))
        with pytest.raises(ConfigError, match="cannot use one of the TLS files"):
            await attempt(ca=(key,))
    finally:
        running.stop()


# --- archives that others read, and theirs ------------------------------------------------------------------


def inspect(source: str) -> Mapping[str, object]:
    done = subprocess.run(["skopeo", "inspect", source], check=True, capture_output=True)
    found: Mapping[str, object] = json.loads(done.stdout)
    return found


def test_others_read_our_archives(built: Built, tmp_path: Path) -> None:
    name = "docker.io/library/app:1"
    oci, docker = tmp_path / "oci.tar", tmp_path / "docker.tar"
    with oci.open("wb") as sink:
        layout.write_tar(sink, [NamedImage(target=built.target, names=(name,))], built.blobs)
    extra = dockertar.files([(parse_manifest(built.manifest), ("app:1",))])
    with docker.open("wb") as sink:
        layout.write_tar(sink, [NamedImage(target=built.target, names=(name,))], built.blobs, extra=extra)
    assert inspect(f"oci-archive:{oci}:1")["Digest"] == built.target.digest
    assert inspect(f"docker-archive:{docker}:app:1")["Architecture"] == "amd64"
    assert inspect(f"oci-archive:{docker}:1")["Digest"] == built.target.digest
    directory = built.write(tmp_path / "oci", name)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{directory}:1", str(tmp_path / "bundle")], check=True, capture_output=True
    )
    assert (tmp_path / "bundle/rootfs/a").read_bytes() == b"a" * 10


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_we_read_the_archives_of_others(built: Built, tmp_path: Path, kind: str) -> None:
    directory = built.write(tmp_path / "oci", "docker.io/library/app:1")
    archive = tmp_path / "archive.tar"
    target = f"{kind}:{archive}:docker.io/library/app:1"
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{directory}:1", target], check=True, capture_output=True)
    store = ContentStore(tmp_path / "store")
    with archive.open("rb") as stream:
        (loaded,) = load_tar(stream, store)
    (found,) = loaded.manifests
    assert found.config is not None
    assert found.config.raw == built.config
    assert [str(reference.parse(name)) for name in loaded.names] == ["docker.io/library/app:1"]
    if kind == "oci-archive":
        assert loaded.target.digest == built.target.digest
