"""docker-buildx's commands about registries and builders, before ours and somebody else's.

What imagetools makes is its own work; a registry and a builder are asked for what is there.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bases import docker_registry, image, layer, push
from tests.conformance import alike
from tests.conformance.buildx import Buildx
from tests.conformance.sides import Side, Sides
from tests.fakes.own_registry import own_registry


class Registries(NamedTuple):
    """Hosts with the same images: `one` for amd64, `two` for arm64, `built` with provenance and an SBOM."""

    buildx: Buildx
    ours: str
    dockers: str


@pytest.fixture(scope="module")
def registries(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    work = tmp_path_factory.mktemp("registries")
    buildx = sides.ours.buildx
    (work / "Dockerfile").write_text("FROM base\nCOPY Dockerfile /\n")
    with own_registry(work / "ours") as ours, docker_registry(work) as dockers:
        for host in (ours.address, dockers):
            for tag, architecture in (("one", "amd64"), ("two", "arm64")):
                made = image(layer({"file": tag.encode()}), architecture=architecture)
                push(host, "app", made, tag=tag)
            flags = ("--attest", "type=provenance,mode=max", "--sbom", "generator=scanner")
            platforms = ("--platform", "linux/amd64,linux/arm64", "--build-arg", "SOURCE_DATE_EPOCH=1700000000")
            buildx.build(work, *flags, *platforms, "-t", f"{host}/app:built", "--push")
        yield Registries(buildx, ours.address, dockers)


IMAGETOOLS: Mapping[str, str] = {
    "create": "create -t {host}/app:both {host}/app:one {host}/app:two",
    "inspect": "inspect {host}/app:both",
    "inspect --raw": "inspect --raw {host}/app:both",
    "create --append": "create --append -t {host}/app:one {host}/app:two",
    "create --dry-run": "create --dry-run -t {host}/app:dry {host}/app:one {host}/app:two",
    "create --annotation": "create -t {host}/app:noted --annotation index:a=b {host}/app:both",
    "create --platform": "create -t {host}/app:arm --platform linux/arm64 {host}/app:both",
    "create --prefer-index=false": "create -t {host}/app:copy --prefer-index=false {host}/app:two",
    "create --file": "create -t {host}/app:file --file {work}/descriptor",
    "create of what was built": "create -t {host}/app:again {host}/app:built",
    "create in another place": "create -t {host}/else/where:1 {host}/app:both",
    "create --progress": "create --progress plain -t {host}/app:plain {host}/app:both",
    "inspect what was made": "inspect --raw {host}/app:noted",
    "inspect a part": "inspect --raw {host}/app:arm",
    "inspect what was moved": "inspect --raw {host}/else/where:1",
    "inspect --format manifest": "inspect --format '{{json .Manifest}}' {host}/app:both",
    "inspect --format image": "inspect --format '{{json .Image}}' {host}/app:built",
    "inspect --format SBOM": "inspect --format '{{json .SBOM}}' {host}/app:built",
    "inspect --format provenance": "inspect --format '{{len .Provenance}}' {host}/app:built",
    "inspect nothing": "inspect {host}/app:nothing",
    "create of nothing": "create -t {host}/app:x {host}/app:nothing",
}


@pytest.mark.parametrize("command", IMAGETOOLS)
def test_imagetools(command: str, registries: Registries, sides: Sides, tmp_path: Path) -> None:
    said = []
    for host in (registries.ours, registries.dockers):
        shown = ("inspect", "--format", "{{json .Manifest}}", f"{host}/app:two")
        raw = json.loads(registries.buildx("imagetools", *shown))
        (tmp_path / "descriptor").write_text(json.dumps({name: raw[name] for name in ("mediaType", "digest", "size")}))
        words = IMAGETOOLS[command].replace("{host}", host).replace("{work}", str(tmp_path))
        done = registries.buildx.run("imagetools", *shlex.split(words))
        text = (done.stdout + done.stderr).decode().replace(host, "HOST")
        shown = text if done.stdout and "built" not in words else _without_times(alike.text(sides.ours, text))
        said.append((done.returncode, shown))
    assert said[0] == said[1]


def _without_times(text: str) -> list[str]:
    """In some order: parts are copied at the same time."""
    return sorted(re.sub(r"^(#\d+) \d+\.\d+", r"\1", line) for line in text.splitlines())


# --- builders -------------------------------------------------------------------------------------------------

BUILDERS: tuple[str, ...] = (
    "create --name other --driver remote --bootstrap {address}",
    "create --name other --append --node second --platform linux/arm64 --driver remote {address}",
    "ls --format '{{.Name}} {{.DriverEndpoint}}'",
    "inspect other",
    "use other",
    "inspect",
    "create --name other --leave --node second",
    "stop other",
    "inspect --bootstrap other",
    "dial-stdio --platform linux/amd64 --progress plain",
    "rm --force other",
    "rm nothing",
    "use nothing",
    "inspect nothing",
    "ls --no-trunc",
    "version",
)


def test_builders(sides: Sides) -> None:
    said = []
    for side in sides:
        address = side.address.replace("unix:", "unix://")
        shown = []
        for words in BUILDERS:
            filled = side.filled(words.replace("{address}", address))
            done = side.buildx.run(*filled, BUILDX_BUILDER="")
            printed = done.stderr if words.startswith("dial-stdio") else done.stdout + done.stderr
            shown.append((words, done.returncode, _shown(side, printed.decode(), address)))
        said.append(shown)
    for ours, theirs in zip(*said, strict=True):
        assert ours == theirs


def _shown(side: Side, text: str, address: str) -> list[str]:
    """Without what tells who is asked, and platforms, which are more where there are emulators."""
    lines = alike.text(side, text.replace(address, "ADDRESS")).splitlines()
    lines = [line.replace(" SECONDS done", " done") for line in lines]  # what took none has none
    return [re.sub(r"^(BuildKit version|Platforms):.*|(running ).*", r"\1\2", line) for line in lines]
