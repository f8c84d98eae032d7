"""The registry of our own, whole: the program on a port, skopeo on the other side, docker's registry beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fakes.commands import PYBUILD
from tests.fakes.own_registry import OwnRegistry, own_registry
from tests.fakes.registry_client import OCI_INDEX, OCI_MANIFEST, RegistryClient, described, digest_of, with_query
from tests.integration.test_registry_docker import HASH, Built, DockerRegistry

MANY = os.urandom(6 << 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def registry(root: Path) -> Iterator[OwnRegistry]:
    with own_registry(root) as running:
        yield running


def skopeo(*arguments: str, fails: bool = False) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, check=False)
    assert (done.returncode != 0) == fails, done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


def copy(source: str, target: str, *options: str) -> None:
    skopeo("copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", *options, source, target)


def pybuild(root: Path, *arguments: str, status: int = 0) -> str:
    argv = [str(PYBUILD), "--root", str(root), *arguments]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode()


def blobs(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


def two_platforms(client: RegistryClient, directory: Path, repository: str) -> str:
    """An image for two platforms, pushed by skopeo and put together by hand; the digest of the index."""
    entries = []
    for architecture in ("amd64", "arm64"):
        image = Built(architecture, size=10_000)
        source = image.write(directory / architecture, "docker.io/library/app:1")
        copy(f"oci:{source}:1", f"docker://{client.address}/{repository}:{architecture}")
        platform = {"os": "linux", "architecture": architecture}
        entries.append(described(image.manifest, OCI_MANIFEST, platform=platform))
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    assert client.push_manifest(repository, "all", raw, OCI_INDEX).status == 201
    return digest_of(raw)


# --- with skopeo ----------------------------------------------------------------------------------------------------


def test_skopeo_pushes_and_pulls_the_same_bytes(registry: OwnRegistry, tmp_path: Path) -> None:
    image = Built().write(tmp_path / "in", "docker.io/library/app:1")
    copy(f"oci:{image}:1", f"docker://{registry.address}/a/b:1")
    copy(f"docker://{registry.address}/a/b:1", f"oci:{tmp_path / 'out'}:1")
    assert blobs(tmp_path / "out") == blobs(image)
    assert {r.status for r in registry.log()} <= {200, 201, 202, 404}
    assert registry.complaints == ""


def test_all_platforms_through_both_registries_and_back(registry: OwnRegistry, tmp_path: Path) -> None:
    """Ours, docker's, a layout, ours again: one digest all the way."""
    digest = two_platforms(RegistryClient(registry.address), tmp_path, "app")
    docker = DockerRegistry(tmp_path / "docker")
    try:
        places = [
            f"docker://{registry.address}/app:all",
            f"docker://{docker.host}/app:all",
            f"oci:{tmp_path / 'layout'}:all",
            f"docker://{registry.address}/again/app:all",
        ]
        for source, target in pairwise(places):
            copy(source, target, "--all")
        for place in places[:2] + places[3:]:
            raw = skopeo("inspect", "--raw", "--tls-verify=false", place)
            assert digest_of(raw.encode()) == digest
    finally:
        docker.stop()
    assert json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"][0]["digest"] == digest


def test_docker_manifests_too(registry: OwnRegistry, tmp_path: Path) -> None:
    image = Built().write(tmp_path / "in", "docker.io/library/app:1")
    copy(f"oci:{image}:1", f"docker://{registry.address}/app:docker", "--format=v2s2")
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/app:docker"))
    assert raw["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    copy(f"docker://{registry.address}/app:docker", f"dir:{tmp_path / 'out'}")


def test_between_repositories_nothing_is_sent(registry: OwnRegistry, tmp_path: Path) -> None:
    image = Built().write(tmp_path / "in", "docker.io/library/app:1")
    copy(f"oci:{image}:1", f"docker://{registry.address}/one:1")
    last = registry.log()[-1].number
    copy(f"docker://{registry.address}/one:1", f"docker://{registry.address}/two:1")
    log = registry.log(after=last)
    mounts = [r for r in log if r.method == "POST" and "mount=" in r.path]
    assert [r.status for r in mounts] == [201, 201]
    assert sum(r.received for r in log) < 10_000
    assert sum(r.sent for r in log) < 10_000


def test_skopeo_deletes(registry: OwnRegistry, tmp_path: Path) -> None:
    image = Built().write(tmp_path / "in", "docker.io/library/app:1")
    copy(f"oci:{image}:1", f"docker://{registry.address}/app:1")
    skopeo("delete", "--tls-verify=false", f"docker://{registry.address}/app:1")
    skopeo("inspect", "--tls-verify=false", f"docker://{registry.address}/app:1", fails=True)


# --- who may what ---------------------------------------------------------------------------------------------------


def test_only_who_knows_the_password(root: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"alice:{HASH}\n")
    image = Built(size=10).write(tmp_path / "in", "docker.io/library/app:1")
    with own_registry(root, "--htpasswd", users) as registry:
        target = f"docker://{registry.address}/app:1"
        assert RegistryClient(registry.address).ask("GET", "/v2/").status == 401
        for wrong in ((), ("--dest-creds=alice:wrong",), ("--dest-creds=bob:secret",)):
            skopeo("copy", "--dest-tls-verify=false", *wrong, f"oci:{image}:1", target, fails=True)
        copy(f"oci:{image}:1", target, "--dest-creds=alice:secret")
        copy(target, f"oci:{tmp_path / 'out'}:1", "--src-creds=alice:secret")
        assert "secret" not in json.dumps([r.path + r.problem for r in registry.log()])
    assert blobs(tmp_path / "out") == blobs(image)


def test_a_registry_that_is_only_read(root: Path, tmp_path: Path) -> None:
    with own_registry(root) as registry:
        digest = RegistryClient(registry.address).push_image("app", "latest")
    with own_registry(root, "--read-only") as registry:
        client = RegistryClient(registry.address)
        assert client.ask("GET", "/v2/app/manifests/latest").header("Docker-Content-Digest") == digest
        for method, target in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("PUT", "/v2/app/manifests/other"),
            ("DELETE", "/v2/app/manifests/latest"),
            ("DELETE", f"/v2/app/blobs/{digest_of(b'{}')}"),
        ):
            response = client.ask(method, target, b"")
            assert (response.status, response.codes) == (405, {"UNSUPPORTED"})
            assert set((response.header("Allow") or "").split(", ")) <= {"GET", "HEAD", ""}
        assert client.ask("GET", "/v2/app/tags/list").json()["tags"] == ["latest"]


def test_tls(root: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "ca.crt").write_bytes(cert.read_bytes())
    image = Built().write(tmp_path / "in", "docker.io/library/app:1")
    with own_registry(root, "--tls-cert", cert, "--tls-key", key) as registry:
        assert registry.url.startswith("https://127.0.0.1:")
        target = f"docker://{registry.address}/app:1"
        skopeo("copy", f"oci:{image}:1", target, fails=True)
        skopeo("copy", f"--dest-cert-dir={trusted}", f"oci:{image}:1", target)
        skopeo("copy", f"--src-cert-dir={trusted}", target, f"oci:{tmp_path / 'out'}:1")
        assert registry.log()[-1].status == 200
    assert blobs(tmp_path / "out") == blobs(image)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--addr", "nonsense"), "no address to listen on"),
        (("--addr", "127.0.0.1:99999"), "no address to listen on"),
        (("--addr", "::1:5000"), "no address to listen on"),
        (("--addr", "192.0.2.1:0"), "cannot listen on 192.0.2.1:0"),
        (("--tls-cert", "/etc/hostname"), "needs both a certificate and a key"),
        (("--tls-cert", "/etc/hostname", "--tls-key", "/etc/hostname"), "cannot use the certificate"),
        (("--htpasswd", "/nonexistent"), "cannot read /nonexistent"),
        (("--htpasswd", "/etc/hosts"), "is not user:hash"),
    ],
)
def test_what_it_cannot_start_with(root: Path, flags: tuple[str, ...], said: str) -> None:
    argv = [str(PYBUILD), "--root", str(root), "registry", "serve", "--addr", "127.0.0.1:0", *flags]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode in (1, 3)
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_an_address_that_is_taken(registry: OwnRegistry, tmp_path: Path) -> None:
    flags = ("registry", "serve", "--addr", registry.address)
    argv = [str(PYBUILD), "--root", str(tmp_path / "other"), *flags]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode == 3
    assert f"cannot listen on {registry.address}" in done.stderr.decode()


# --- one store ------------------------------------------------------------------------------------------------------


def test_what_is_served_is_on_disk_once_and_no_prune_takes_it(root: Path, tmp_path: Path) -> None:
    image = Built()
    source = image.write(tmp_path / "in", "docker.io/library/app:1")
    skopeo("copy", "--quiet", f"oci:{source}:1", f"oci-archive:{tmp_path / 'archive'}:docker.io/library/app:1")
    pybuild(root, "image", "load", "-i", str(tmp_path / "archive"))
    with own_registry(root) as registry:
        copy(f"oci:{source}:1", f"docker://{registry.address}/app:1")
        pybuild(root, "image", "prune", "--all", "--force")
        pybuild(root, "prune", "--all", "--force")
        assert sorted(os.listdir(root / "blobs" / "sha256")) == sorted(blobs(source))
        copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path / 'out'}:1")
        pybuild(root, "debug", "verify-store")
    assert blobs(tmp_path / "out") == blobs(source)


def test_two_registries_on_one_root(registry: OwnRegistry, root: Path, tmp_path: Path) -> None:
    """Pushes to either at once, of images that share a layer; each serves what the other was given."""
    layers = [os.urandom(1 << 20) for _ in range(6)]
    link = tmp_path / "same"
    link.symlink_to(root)
    with own_registry(link) as other:
        clients = [RegistryClient(registry.address), RegistryClient(other.address)]
        pushed: dict[str, str] = {}

        def push(number: int) -> None:
            shown = (MANY, layers[number])
            pushed[f"v{number}"] = clients[number % 2].push_image("app", f"v{number}", layers=shown)

        pushers = [threading.Thread(target=push, args=(number,)) for number in range(6)]
        for pusher in pushers:
            pusher.start()
        for pusher in pushers:
            pusher.join()
        for client in clients:
            assert client.ask("GET", "/v2/app/tags/list").json()["tags"] == sorted(pushed)
            for tag, digest in pushed.items():
                head = client.ask("HEAD", f"/v2/app/manifests/{tag}")
                assert head.header("Docker-Content-Digest") == digest
            for layer in (MANY, *layers):
                assert client.ask("GET", f"/v2/app/blobs/{digest_of(layer)}").body == layer
        assert registry.complaints + other.complaints == ""
    pybuild(root, "debug", "verify-store")


def test_what_was_deleted_gives_its_space_back(registry: OwnRegistry, root: Path) -> None:
    client = RegistryClient(registry.address)
    digest = client.push_image("app", "latest", layers=(MANY,))
    client.push_blob("other", MANY)
    assert client.ask("DELETE", f"/v2/app/manifests/{digest}").status == 202
    for data in (b"{}", MANY):
        assert client.ask("DELETE", f"/v2/app/blobs/{digest_of(data)}").status == 202
    assert client.ask("GET", f"/v2/other/blobs/{digest_of(MANY)}").body == MANY
    assert client.ask("GET", "/v2/_catalog").json() == {"repositories": ["other"]}
    assert registry.stop() == 0
    pybuild(root, "prune", "--force")
    assert os.listdir(root / "blobs" / "sha256") == [digest_of(MANY).removeprefix("sha256:")]


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_push_end_well(root: Path, number: int) -> None:
    with own_registry(root) as registry:
        client = RegistryClient(registry.address)
        target = with_query(client.begin("app"), digest=digest_of(MANY))
        begun, go_on = threading.Event(), threading.Event()

        def slowly() -> Iterator[bytes]:
            yield MANY[: 1 << 20]
            begun.set()
            go_on.wait(20)
            yield MANY[1 << 20 :]

        statuses: list[int] = []
        push = threading.Thread(target=lambda: statuses.append(client.ask("PUT", target, slowly()).status))
        push.start()
        assert begun.wait(20)
        registry.process.send_signal(number)
        go_on.set()
        push.join()
        assert registry.process.wait(20) == 0
    assert statuses == [201]
    assert os.listdir(root / "ingest") == []
    assert os.listdir(root / "leases") == []
    pybuild(root, "debug", "verify-store")


def test_signals_that_it_was_started_to_ignore_stay_ignored(root: Path) -> None:
    ignoring = ("env", "--ignore-signal=INT", "--ignore-signal=TERM", "--ignore-signal=HUP")
    with own_registry(root, prefix=ignoring) as registry:
        client = RegistryClient(registry.address)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            registry.process.send_signal(number)
            assert client.push_image("app", f"after-{number}")
        assert registry.stop(signal.SIGKILL) == -signal.SIGKILL
        assert registry.complaints == ""


@pytest.mark.parametrize(
    "point", ["blob.written", "blob.renamed", "blob.committed:2", "served.committed", "sync.flushed", "sync.done"]
)
def test_killed_at_a_point_and_pushed_again(root: Path, tmp_path: Path, point: str) -> None:
    """What was half pushed is swept or whole; the same push then succeeds."""
    source = Built(size=100_000).write(tmp_path / "in", "docker.io/library/app:1")
    argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{source}:1"]
    with own_registry(root, environment={"PYBUILD_TRACEPOINT": point}) as registry:
        subprocess.run([*argv, f"docker://{registry.address}/app:1"], capture_output=True, check=False)
        assert registry.process.wait(30) == -signal.SIGKILL
    pybuild(root, "debug", "verify-store")
    with own_registry(root) as registry:
        assert os.listdir(root / "ingest") == []
        copy(f"oci:{source}:1", f"docker://{registry.address}/app:1")
        copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path / 'out'}:1")
    assert blobs(tmp_path / "out") == blobs(source)
    pybuild(root, "debug", "verify-store")


def test_killed_in_the_middle_of_an_upload(root: Path) -> None:
    with own_registry(root) as registry:
        client = RegistryClient(registry.address)
        client.push_image("app", "latest")
        assert client.ask("PATCH", client.begin("app"), MANY).status == 202
        assert len(os.listdir(root / "ingest")) == 1
        assert registry.stop(signal.SIGKILL) == -signal.SIGKILL
    with own_registry(root) as registry:
        assert os.listdir(root / "ingest") == []
        client = RegistryClient(registry.address)
        assert client.ask("GET", "/v2/app/tags/list").json()["tags"] == ["latest"]
    pybuild(root, "debug", "verify-store")
