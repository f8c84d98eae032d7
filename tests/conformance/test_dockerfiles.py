"""Dockerfiles of every kind, converted by our frontend and by BuildKit's: the same operations, names, configs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from buildengine.digest import Digest
from buildengine.errors import SourceRange
from llb.definition import Definition
from llb.inspect import documents
from tests.builds import write
from tests.conformance import peer
from tests.conformance.asked import Answer, ask
from tests.conformance.base_images import mirror
from tests.fakes.daemon import daemon

_FILES = Path(__file__).parent / "dockerfiles"
_MANY = "linux/amd64,linux/arm64,linux/arm/v7"
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "args_scopes": {"build-arg:EXTRA": "given", "build-arg:HTTP_PROXY": "http://proxy:1", "label:given": "too"},
    "bake_targets": {"target": "vendor-update"},
    "cross_compile": {"platform": "linux/arm64"},
    "elixir_release": {"build-arg:SOURCE_DATE_EPOCH": "1700000000"},
    "go_service": {"platform": _MANY, "build-arg:VERSION": "1.2"},
    "labels_meta": {"build-arg:VCS_REF": "abc123", "label:b": "2", "label:a": "1"},
    "multi_platform_app": {"platform": _MANY},
    "named_contexts": {
        "context:base-image": "docker-image://alpine:3.22",
        "context:assets": "local:assets",
        "context:tools": "https://git.example.com/tools.git#v1",
        "context:replaced": "docker-image://busybox:latest",
    },
    "network_security": {"platform": "linux/amd64"},
    "options_everywhere": {
        "no-cache": "two",
        "add-hosts": "a=10.0.0.1,b=10.0.0.2",
        "ulimit": "nofile=1024:2048",
        "shm-size": "131072",
        "cgroup-parent": "/builds",
        "hostname": "builder",
        "force-network-mode": "none",
        "build-arg:BUILDKIT_CACHE_MOUNT_NS": "ns",
    },
    "platform_flags": {"platform": "linux/amd64"},
    "ruby_rails": {"no-cache": ""},
}
IGNORED = {"ignored_context": "**/*.md\n!docs/readme.md\n# comment\n  /build/  \nnode_modules\n"}
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in _FILES.iterdir())


class Sides(NamedTuple):
    """Addresses, and the digests of the base images by their names."""

    ours: str
    theirs: str
    digests: Mapping[str, str]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    work = tmp_path_factory.mktemp("sides")
    with ExitStack() as stack:
        mirrored = stack.enter_context(mirror(work))
        config = work / "buildkitd.toml"
        config.write_text(mirrored.configuration)
        (work / "peer").mkdir()
        stack.enter_context(peer.daemon(work / "peer", "--config", config))
        ours = stack.enter_context(daemon(work / "root", work / "ours", "--config", config))
        theirs = f"unix://{work}/peer/buildkitd.sock"
        yield Sides(ours.address.replace("unix:", "unix://"), theirs, mirrored.digests)


def test_there_are_fifty() -> None:
    assert len(NAMES) >= 50
    assert OPTIONS.keys() | IGNORED.keys() <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_conversion(sides: Sides, name: str, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": (_FILES / f"{name}.Dockerfile").read_bytes()})
    if name in IGNORED:
        write(context, {".dockerignore": IGNORED[name]})
    locals = {"assets": write(tmp_path / "assets", {"logo.png": "x"})}
    options = {key: pinned(value, sides.digests) for key, value in OPTIONS.get(name, {}).items()}
    ours, theirs = [ask(address, context, options, locals) for address in (sides.ours, sides.theirs)]
    assert shown(ours) == shown(theirs)
    for platform, there in theirs.definitions.items():
        assert places(there).items() <= places(ours.definitions[platform]).items()
    assert capabilities(theirs) - capabilities(ours) <= {"source.git.knownsshhosts"}  # nobody can be asked here


@pytest.mark.parametrize("name", NAMES)
def test_findings(sides: Sides, name: str, tmp_path: Path) -> None:
    """What `--check` says, as it is printed, and its exit status."""
    context = write(tmp_path / "context", {"Dockerfile": (_FILES / f"{name}.Dockerfile").read_bytes()})
    write(context, {".dockerignore": IGNORED.get(name, "")})
    locals = {"assets": write(tmp_path / "assets", {"logo.png": "x"})}
    options = {key: pinned(value, sides.digests) for key, value in OPTIONS.get(name, {}).items()}
    options |= {"requestid": "frontend.lint", "build-arg:BUILDKIT_DOCKERFILE_CHECK": "experimental=all"}
    ours, theirs = [ask(address, context, options, locals).metadata for address in (sides.ours, sides.theirs)]
    assert ours["result.txt"].decode() == theirs["result.txt"].decode()
    assert ours["result.statuscode"] == theirs["result.statuscode"]


@pytest.mark.parametrize("name", ["secrets_and_ssh", "onbuild_child", "copy_flags"])
def test_definitions_can_be_asked_for(sides: Sides, name: str, tmp_path: Path) -> None:
    """`frontend.convertllb`: what `buildctl` prints of it."""
    context = write(tmp_path / "context", {"Dockerfile": (_FILES / f"{name}.Dockerfile").read_bytes()})
    options = {**OPTIONS.get(name, {}), "requestid": "frontend.convertllb"}
    answers = [ask(address, context, options, {}).metadata for address in (sides.ours, sides.theirs)]
    assert answers[0].keys() == answers[1].keys()
    ours, theirs = [json.loads(answer["result.json"]) for answer in answers]
    for document in (ours, theirs):
        for metadata in document["metadata"].values():
            metadata.pop("caps", None)
            metadata.pop("progress_group", None)
    assert ours["def"] == theirs["def"]
    assert ours["metadata"] == theirs["metadata"]
    assert ours["source"]["infos"][0]["data"] == theirs["source"]["infos"][0]["data"]


def pinned(value: str, digests: Mapping[str, str]) -> str:
    """A named context is pinned here also where it is not written so, and not there: so it is written."""
    image = value.removeprefix("docker-image://")
    return f"{value}@{digests[f'library/{image}']}" if image != value else value


def shown(answer: Answer) -> dict[str, Any]:
    return {
        "definitions": {platform: _shown(each) for platform, each in answer.definitions.items()},
        "metadata": {key: _config(key, value) for key, value in answer.metadata.items()},
    }


def _config(key: str, value: bytes) -> str:
    """Byte by byte. The config of a base image is as it came here; there it is written anew, without its date, and
    with ports that the Dockerfile exposes: a map that both share."""
    return "" if key.startswith("containerimage.base.config") else value.decode()


def _shown(definition: Definition) -> dict[str, Any]:
    """All but capabilities. The ids of progress groups are random there: each becomes the number of its group."""
    operations = list(documents(definition))
    groups: dict[str, int] = {}
    for metadata in [each["OpMetadata"] for each in operations]:
        metadata.pop("caps", None)
        if group := metadata.get("progress_group"):
            group["id"] = groups.setdefault(group["id"], len(groups))
    return {
        "operations": operations,
        "files": [(each.filename, each.language, each.data) for each in definition.source.files],
    }


def places(definition: Definition) -> Mapping[Digest, list[tuple[SourceRange, ...]]]:
    """The lines of each operation. BuildKit's does not tell those of what ADD loads and of what stands in heredocs."""
    found = definition.source.places.items()
    return {digest: lines for digest, places in found if (lines := [each.ranges for each in places if each.ranges])}


def capabilities(answer: Answer) -> set[str]:
    """BuildKit's client forgets those of file operations, so there may be fewer."""
    every = [metadata.caps for each in answer.definitions.values() for metadata in each.metadata.values()]
    return {capability for caps in every for capability in caps}
