"""`pybuild imagetools` between docker's registry and ours; what comes out is looked at with skopeo."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buildengine.digest import Digest
from tests.fakes.commands import Commands, Ended, open_commands
from tests.fakes.own_registry import OwnRegistry, own_registry
from tests.fakes.registry_server import Image, descriptor, index
from tests.integration.test_registry_docker import DockerRegistry
from worker.oci import jsonbytes, types

SHARED = gzip.compress(b"shared " * 1000, mtime=0)
AMD64 = Image(layers=[SHARED, gzip.compress(os.urandom(3_000_000), 1)])
ARM64 = Image(layers=[SHARED, gzip.compress(b"arm64")], architecture="arm64")
STATEMENT = jsonbytes.compact({"predicate": {"buildType": "test"}, "predicateType": "https://slsa.dev/provenance/v0.2"})
PACKAGES = jsonbytes.compact({"predicate": {"name": "sbom"}, "predicateType": "https://spdx.dev/Document"})


def attestation() -> Image:
    kinds = ("https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document")
    blobs = (STATEMENT, PACKAGES)
    made = Image(layers=blobs, architecture="unknown", config=b"{}")
    layers = [
        descriptor(data, "application/vnd.in-toto+json", annotations={"in-toto.io/predicate-type": kind})
        for data, kind in zip(blobs, kinds, strict=True)
    ]
    document = {"schemaVersion": 2, "mediaType": types.OCI_MANIFEST, "config": descriptor(b"{}", types.OCI_CONFIG)}
    made.manifest = jsonbytes.indented({**document, "layers": layers})
    return made


ATTESTED = attestation()
ABOUT = {
    "vnd.docker.reference.digest": str(Digest.sha256(ARM64.manifest)),
    "vnd.docker.reference.type": "attestation-manifest",
}
MULTI = index(
    AMD64.entry(),
    ARM64.entry(architecture="arm64", os="linux", variant="v8"),
    {**ATTESTED.entry(architecture="unknown", os="unknown"), "annotations": ABOUT},
)


# --- the other side -----------------------------------------------------------------------------------------


def request(host: str, method: str, path: str, body: bytes = b"", media_type: str = "") -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection(host)
    try:
        connection.request(method, path, body=body or None, headers={"content-type": media_type} if media_type else {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers.get("location", "")
    finally:
        connection.close()


def put(host: str, repository: str, tag: str, image: Image) -> None:
    for data in (image.config, *image.layers):
        _, _, location = request(host, "POST", f"/v2/{repository}/blobs/uploads/")
        path = re.sub(r"^https?://[^/]*", "", location)
        joined = f"{path}{'&' if '?' in path else '?'}digest={Digest.sha256(data)}"
        assert request(host, "PUT", joined, data, "application/octet-stream")[0] == 201
    put_manifest(host, repository, tag, image.manifest, image.media_type)


def put_manifest(host: str, repository: str, tag: str, raw: bytes, media_type: str) -> None:
    assert request(host, "PUT", f"/v2/{repository}/manifests/{tag}", raw, media_type)[0] == 201


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = DockerRegistry(tmp_path_factory.mktemp("docker"))
    for tag, image in (("amd64", AMD64), ("arm64", ARM64), ("attested", ATTESTED)):
        put(running.host, "app", tag, image)
    put_manifest(running.host, "app", "multi", MULTI, types.OCI_INDEX)
    yield running.host
    running.stop()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    with own_registry(tmp_path_factory.mktemp("ours") / "root") as running:
        yield running


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with open_commands() as opened:
        yield opened


def run(commands: Commands, *args: object, status: int = 0) -> Ended:
    ended = commands.run("imagetools", *args)
    assert ended.status == status, ended.text
    return ended


def raw(name: str) -> bytes:
    return subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
    ).stdout


def copied_by_skopeo(name: str, directory: Path) -> set[str]:
    """The blobs of the whole image, as skopeo finds and checks them."""
    command = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", f"docker://{name}"]
    subprocess.run([*command, f"oci:{directory}:x"], check=True, capture_output=True)
    return set(os.listdir(directory / "blobs/sha256"))


def digests(*data: bytes) -> set[str]:
    return {Digest.sha256(item).hex for item in data}


EVERYTHING = digests(
    MULTI,
    *(part for image in (AMD64, ARM64, ATTESTED) for part in (image.manifest, image.config, *image.layers)),
)


# --- create -------------------------------------------------------------------------------------------------


def test_an_index_goes_from_one_registry_to_another_as_it_is(
    commands: Commands, docker: str, ours: OwnRegistry, tmp_path: Path
) -> None:
    target, again = f"{ours.address}/copy/app:multi", f"{ours.address}/other/app:multi"
    create = ("--root", tmp_path / "state", "imagetools", "create", "-t", target, f"{docker}/app:multi")
    assert commands.run(*create, prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all")).status == 0
    assert raw(target) == MULTI
    assert not (tmp_path / "state").exists()  # nothing is kept here
    assert copied_by_skopeo(target, tmp_path / "copy") >= EVERYTHING
    seen = len(ours.log())
    run(commands, "create", "-t", target, f"{docker}/app:multi")
    assert {entry.method for entry in ours.log(after=seen)} == {"HEAD"}  # it is all there, nothing is sent again
    run(commands, "create", "-t", again, target)
    uploads = [entry for entry in ours.log(after=seen) if "/blobs/uploads/" in entry.path]
    assert uploads
    assert all("mount=" in entry.path and entry.status == 201 for entry in uploads)
    assert raw(again) == MULTI


def test_what_our_registry_has_goes_to_dockers(
    commands: Commands, docker: str, ours: OwnRegistry, tmp_path: Path
) -> None:
    put(ours.address, "mine", "arm64", ARM64)
    run(commands, "create", "-t", f"{docker}/from/ours:1", "--prefer-index=false", f"{ours.address}/mine:arm64")
    assert raw(f"{docker}/from/ours:1") == ARM64.manifest
    assert copied_by_skopeo(f"{docker}/from/ours:1", tmp_path / "copy") == digests(
        ARM64.manifest, ARM64.config, *ARM64.layers
    )


def test_two_images_become_one_with_several_names(commands: Commands, docker: str) -> None:
    names = [f"{docker}/combined:{tag}" for tag in ("1", "latest")]
    metadata = Path(os.devnull)
    run(
        commands,
        *("create", "-t", names[0], "-t", names[1], "--metadata-file", metadata),
        *("--annotation", "index:a.b=1", "--annotation", "manifest-descriptor[linux/arm64]:c=2"),
        *(f"{docker}/app:amd64", f"{docker}/app:arm64"),
    )
    expected: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": types.OCI_INDEX,
        "manifests": [AMD64.entry(), {**ARM64.entry(), "annotations": {"c": "2"}}],
        "annotations": {"a.b": "1"},
    }
    assert raw(names[0]) == raw(names[1])
    assert json.loads(raw(names[0])) == expected
    skopeo = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--override-arch=arm64", "--config", f"docker://{names[0]}"],
        check=True,
        capture_output=True,
    )
    assert json.loads(skopeo.stdout)["architecture"] == "arm64"


def test_append_digests_and_descriptors_in_files(commands: Commands, docker: str, tmp_path: Path) -> None:
    name = f"{docker}/app:appended"
    run(commands, "create", "-t", name, f"{docker}/app:amd64")
    described = {**ARM64.entry(), "platform": {"os": "linux", "architecture": "arm64", "os.version": "10.1"}}
    file = tmp_path / "descriptor.json"
    file.write_text(json.dumps(described) + "\n")
    run(commands, "create", "-t", name, "--append", "-f", file)
    first, second = json.loads(raw(name))["manifests"]
    assert first == AMD64.entry()
    assert second["platform"] == {"architecture": "arm64", "os": "linux", "os.version": "10.1"}
    run(commands, "create", "-t", name, str(Digest.sha256(ARM64.manifest)))
    assert json.loads(raw(name))["manifests"] == [ARM64.entry()]


def test_only_some_platforms_with_what_attests_them(commands: Commands, docker: str) -> None:
    shown = run(commands, "create", "--dry-run", "-p", "linux/arm64", f"{docker}/app:multi").stdout
    kept = [entry["digest"] for entry in json.loads(shown)["manifests"]]
    assert kept == [str(Digest.sha256(image.manifest)) for image in (ARM64, ATTESTED)]
    name = f"{docker}/some:arm64"
    run(commands, "create", "-t", name, "-p", "linux/arm64", f"{docker}/app:multi")
    assert raw(name) + b"\n" == shown


def test_what_cannot_be_made(commands: Commands, docker: str) -> None:
    source = f"{docker}/app:amd64"
    assert "there are no sources" in run(commands, "create", "-t", "x", status=2).text
    assert "the new image has no name" in run(commands, "create", source, status=1).text
    assert "not found" in run(commands, "create", "--dry-run", f"{docker}/app:gone", status=1).text.replace(
        "manifest unknown", "not found"
    )
    ended = run(commands, "create", "--dry-run", "--annotation", "a=1", source, status=1)
    assert "cannot be annotated" in ended.text
    ended = run(commands, "create", "--dry-run", "-p", "linux/s390x", f"{docker}/app:multi", status=1)
    assert "hint: there are linux/amd64, linux/arm64" in ended.text


# --- inspect ------------------------------------------------------------------------------------------------


def test_inspect_as_buildx_shows_it(commands: Commands, docker: str) -> None:
    name = f"{docker}/app:multi"
    expected = f"""\
Name:      {name}
MediaType: {types.OCI_INDEX}
Digest:    {Digest.sha256(MULTI)}
{" " * 11}
Manifests:{" "}
  Name:        {name}@{Digest.sha256(AMD64.manifest)}
  MediaType:   {types.OCI_MANIFEST}
  Platform:    linux/amd64
{" " * 15}
  Name:        {name}@{Digest.sha256(ARM64.manifest)}
  MediaType:   {types.OCI_MANIFEST}
  Platform:    linux/arm64/v8
{" " * 15}
  Name:        {name}@{Digest.sha256(ATTESTED.manifest)}
  MediaType:   {types.OCI_MANIFEST}
  Platform:    unknown/unknown
  Annotations:{" "}
    vnd.docker.reference.digest: {Digest.sha256(ARM64.manifest)}
    vnd.docker.reference.type:   attestation-manifest
"""
    assert run(commands, "inspect", name).stdout.decode() == expected
    assert run(commands, "inspect", name, "--format", "{{ .Manifest }}").stdout.decode() == expected
    assert run(commands, "inspect", "--raw", name).stdout == MULTI


def test_inspect_a_single_manifest(commands: Commands, docker: str) -> None:
    name = f"{docker}/app@{Digest.sha256(AMD64.manifest)}"
    shown = run(commands, "inspect", name).stdout.decode().splitlines()
    assert shown == [
        f"Name:      {name}",
        f"MediaType: {types.OCI_MANIFEST}",
        f"Digest:    {Digest.sha256(AMD64.manifest)}",
    ]
    assert run(commands, "inspect", name, "--format", "{{.Image.Architecture}}").stdout == b"amd64"


def test_inspect_with_a_template(commands: Commands, docker: str) -> None:
    name = f"{docker}/app:multi"

    def shown(template: str) -> str:
        return run(commands, "inspect", "--format", template, name).stdout.decode()

    assert shown("{{.Name}} {{.Manifest.Digest}}") == f"{name} {Digest.sha256(MULTI)}"
    everything = json.loads(shown("{{json .}}"))
    assert list(everything) == ["name", "manifest", "image"]
    assert everything["manifest"]["manifests"] == json.loads(MULTI)["manifests"]
    assert everything["image"] == {
        "linux/amd64": json.loads(AMD64.config),
        "linux/arm64": json.loads(ARM64.config),
    }
    assert shown('{{(index .Image "linux/arm64").RootFS.Type}}') == "layers"
    assert json.loads(shown("{{json .Provenance}}")) == {"linux/arm64": {"SLSA": {"buildType": "test"}}}
    assert json.loads(shown('{{json (index .SBOM "linux/arm64").SPDX}}')) == {"name": "sbom"}


def test_templates_that_are_not_understood(commands: Commands, docker: str) -> None:
    for template, problem in (
        ("{{range .Manifest}}{{end}}", "is not understood"),
        ("{{.Nope}}", "there is no field 'Nope'"),
        ("{{.Manifest.Nope}}", "there is no field 'Manifest.Nope'"),
        ('{{(index .Image "linux/s390x").Os}}', "no 'linux/s390x'"),
    ):
        assert problem in run(commands, "inspect", "--format", template, f"{docker}/app:multi", status=1).text
    assert "do not go together" in run(commands, "inspect", "--raw", "--format", "{{.Name}}", "x", status=2).text
